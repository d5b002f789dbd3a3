"""From a `Config` to its environment, policy, sampler and learner, for main.py, test.py and notebooks."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rl import envs, machine, streams
from rl.algorithm import meta_objective, metalearner
from rl.algorithm.options import Options
from rl.algorithm.outer_steps import OUTER_STEPS
from rl.config import Config
from rl.envs import adapter
from rl.envs.base import TaskVectorEnv
from rl.errors import EpisodeError, UserError, in_one_line, text_of
from rl.policies import Architecture, make_policy, match_params
from rl.ranks import Ranks
from rl.run import device, metrics, resources
from rl.run.checkpoint import load_policy
from rl.run.shares import Shares
from rl.sampling.in_process import InProcessSampler
from rl.sampling.jobs import Sampler, WorkerSpec
from rl.sampling.rollout import AdaptationPlan, StreamName, Tasks
from rl.sampling.worker_pool import WorkerPool

MAX_PARAMS = 100_000_000  # conjugate gradient and the workers' pipes hold several copies of θ


class Setup:
    """What a `Config` describes: the environment and the policy, and how they are sampled and learnt from.

    Args:
        task_seed: of the environment's task sets; default: the run's seed.
        ranks: which share the machine's cores, memory and GPUs; default: one process alone.

    Attributes:
        tasks_per_block: tasks whose sums the outer step adds up first, and which one rank computes.
        env: with one episode; draws tasks and knows the sizes.
        spec: what workers are made from.
        options, outer_options: of the meta-objective, and of `outer_step`.
    """

    def __init__(self, config: Config, task_seed: int | None = None, ranks: Ranks | None = None):
        self.config = config
        self.ranks = ranks or Ranks({})
        if config.env_name.startswith("__main__:") and config.num_workers:
            raise UserError(
                f"--env-name {config.env_name}: worker processes do not see what the program itself defines; expected "
                "--num-workers 0, or a module"
            )
        seed = config.seed if task_seed is None else task_seed
        env_options = envs.options(config.env_name, config.env_config_path or None, seed, config.horizon or None)
        self.env = envs.make(config.env_name, 1, **env_options)
        self.policy = make_policy(architecture(config, self.env))
        if self.policy.num_params > MAX_PARAMS:
            raise UserError(
                f"--hidden-size, --num-layers, --nm-size and --num-context-params make a policy of "
                f"{self.policy.num_params:,} parameters; expected at most {MAX_PARAMS:,}"
            )
        self.spec = WorkerSpec(config.env_name, env_options, self.policy.architecture)
        self.tasks_per_block = config.tasks_per_block or self._tasks_per_block()
        row = OUTER_STEPS[config.outer_step]
        others = {name for other in OUTER_STEPS.values() for name in other.of_the_objective} - row.own
        given = {name: value for name, value in vars(config).items() if name in Options._fields and name not in others}
        self.options = Options(gae_lambda=config.tau, **given)
        self.outer_options = row.options(**{name: getattr(config, name) for name in row.options._fields})
        self.outer_step = row.make(self.outer_options)

    def sampler(self) -> Shares:
        """Start the workers of this rank."""
        config = self.config
        sampler: Sampler
        if config.num_workers == 0:
            sampler = InProcessSampler(self.spec, config.tasks_per_group)
        else:
            sampler = WorkerPool(self.spec, config.num_workers, config.tasks_per_group, config.worker_timeout)
        return Shares(sampler, self.ranks)

    def learner(self) -> metalearner.MetaLearner:
        """The meta-learner on the chosen device.

        Raises:
            UserError: the device cannot be used.
        """
        config, ranks = self.config, self.ranks
        place = device.chosen(config.device, ranks.local_rank)
        compute, available = {"block": self.tasks_per_block, "device": place}, machine.memory() / ranks.local_size
        if place.type == "cuda":
            available = device.use_gpu(place, config.tf32)  # a GPU is one rank's own
        else:
            compute["threads"] = config.learner_threads or max(1, machine.cores() // ranks.local_size)
        compute["memory"] = config.learner_memory * machine.GIGABYTE or available / 2
        return metalearner.MetaLearner(self.policy, self.options, self.outer_step, ranks.ordered_sum, **compute)

    def check(self, new: bool = True) -> None:
        """Find out, before anything is written, whether memory, tasks, ranks, sinks and the first policy will do for
        training.

        Args:
            new: whether the run begins; one that is resumed has a state.

        Raises:
            UserError: naming the option.
        """
        config = self.config
        share, option = self.largest_share(), config.test_tasks_option
        resources.check(share, self.env, self.policy, option, num_processes=self.ranks.local_size)
        self._check_blocks()
        if self.ranks.leads:
            metrics.check(config)
            if new and config.init:
                self.initial_params()
        self.first_tasks("--meta-batch-size", config.meta_batch_size, "train", streams.TRAIN)
        self.first_tasks(option, config.test_tasks, "test", streams.EVALUATE)
        if config.explore and not self._says_what_is_safe():
            raise UserError(
                f"--explore: {config.env_name} does not say which actions end an episode; expected an environment "
                "that does (the CT-graph)"
            )

    def _says_what_is_safe(self) -> bool:
        """Whether the environment, once it has a task and was reset, knows its safe actions."""
        with adapter.users_code(self.config.env_name):
            self.env.reset(seed=[0])
            return getattr(self.env, "safe_actions", lambda: None)() is not None

    def close(self) -> None:
        """Close the environment."""
        envs.close(self.env)

    def largest_share(self) -> Config:
        """The `Config` with as many tasks as the rank has that has the most, for estimates."""
        config, size = self.config, self.ranks.size

        def most(count: int, unit: int) -> int:
            return min(count, math.ceil(math.ceil(count / unit) / size) * unit)

        return dataclasses.replace(
            config,
            meta_batch_size=most(config.meta_batch_size, self.tasks_per_block),
            num_test_tasks=most(config.test_tasks, config.tasks_per_group),
        )

    def _check_blocks(self) -> None:
        config, size = self.config, self.tasks_per_block
        count = math.ceil(config.meta_batch_size / size)
        if self.ranks.size > count:
            raise UserError(
                f"{self.ranks.size} processes for {count} block{'s' if count > 1 else ''} of {size} tasks "
                f"(--meta-batch-size {config.meta_batch_size}); expected at most as many processes as blocks, or a "
                f"smaller --tasks-per-block, a multiple of --tasks-per-group ({config.tasks_per_group})"
            )

    def _tasks_per_block(self) -> int:
        """As many as the outer step's work is worth on its device: a function of the configuration and, with `--device
        auto`, of whether there is a GPU.
        """
        config, env = self.config, self.env
        steps = env.horizon * config.fast_batch_size
        # A vector environment of a user's own need not say how many different observations there are.
        rows = min(steps, getattr(env, "num_observations", None) or steps)
        work = meta_objective.WORK[device.kind(config.device)]
        return meta_objective.tasks_per_block(
            config.meta_batch_size, config.tasks_per_group, rows, self.policy.num_params, work
        )

    def initial_params(self) -> dict[str, Tensor]:
        """θ before training: from the seed, or that of `--init`.

        Raises:
            UserError: its file holds no policy that fits.
        """
        if self.config.init:
            try:
                return load_policy(Path(self.config.init), self.policy)
            except UserError as error:
                raise UserError(f"--init: {error}") from None
        return self.policy.initial_params(streams.generator(streams.key(self.config.seed, purpose=streams.PARAMETERS)))

    def sample_tasks(self, num_tasks: int, split: str, iteration: int, phase: int) -> Tasks:
        """Draw an iteration's tasks.

        Args:
            split: train or test.
            iteration, phase: name the random stream (`streams.TRAIN` or `streams.EVALUATE`).
        """
        key = streams.key(self.config.seed, iteration, phase, purpose=streams.TASKS)
        return envs.sample_tasks(self.config.env_name, self.env, num_tasks, split, streams.generator(key))

    def first_tasks(self, option: str, num_tasks: int, split: str, phase: int) -> Tasks:
        """The first tasks of a phase; a user's environment is given one of them.

        Raises:
            UserError: naming the option that says how many.
        """
        try:
            tasks = self.sample_tasks(num_tasks, split, 0, phase)
            if ":" in self.config.env_name:
                self.check_task(tasks[0])
        except UserError as error:
            raise UserError(f"{option} {num_tasks}: {error}") from None
        return tasks

    def check_task(self, task: dict[str, Any]) -> None:
        """Find out whether the environment has a task that somebody wrote down.

        Raises:
            UserError: it has none such.
        """
        if not isinstance(task, dict):
            raise UserError(f"task {task!r:.60}: expected a dict, as those that sample_tasks draws")
        try:
            self.env.set_tasks([task])
        except (Exception, SystemExit) as error:  # the environment's code may be the user's
            cause = error.__cause__ if isinstance(error, EpisodeError) else error
            if isinstance(cause, SystemExit):
                reason = in_one_line(cause)
            else:
                reason = f"it lacks {cause}" if isinstance(cause, KeyError) else text_of(cause)
            raise UserError(f"environment {self.config.env_name}: task {task}: {reason}") from None

    def stream(self, iteration: int, phase: int) -> StreamName:
        """The name of an iteration's random streams."""
        return StreamName(self.config.seed, iteration, phase, first_task=0)

    def train_plan(self) -> AdaptationPlan:
        """Meta-training: episodes before and after `--num-updates`."""
        config = self.config
        return self._plan((config.fast_lr,) * config.num_updates)._replace(explore=config.explore)

    def test_plan(self, updates: int | None = None) -> AdaptationPlan:
        """An evaluation: episodes before and after each of `updates`, by default `--num-test-steps`."""
        config = self.config
        later = config.fast_lr / 2 if config.halve_test_lr else config.fast_lr
        count = config.num_test_steps if updates is None else updates
        plan = self._plan((config.fast_lr, *[later] * (count - 1))[:count])
        return plan._replace(num_episodes=config.test_batch_size)

    def _plan(self, learning_rates: tuple[float, ...]) -> AdaptationPlan:
        config = self.config
        return AdaptationPlan(config.fast_batch_size, learning_rates, config.gamma, config.tau, config.inner_objective)


def architecture(config: Config, env: TaskVectorEnv) -> Architecture:
    """The policy's `Architecture`: the action space decides the head, the options decide the rest."""
    actions: Any = env.single_action_space  # gymnasium says nothing of its shape
    choices = tuple(getattr(actions, "nvec", np.array([], int)).tolist())
    discrete = hasattr(actions, "n") or bool(choices)
    chosen = Architecture(
        observation_size=env.single_observation_space.shape[0],
        action_size=sum(choices) or (int(actions.n) if discrete else actions.shape[0]),
        discrete=discrete,
        choices=choices,
        num_context_params=0 if config.maml else config.num_context_params,
        hidden_sizes=(config.hidden_size,) * config.num_layers,
        nonlinearity=config.nonlinearity,
        nm_gate=config.nm_gate if config.neuromodulation else None,
        nm_size=config.nm_size,
        nm_gate_bias=config.nm_gate_bias,
        nm_without_context=config.nm_without_context,
    )
    return match_params.widened(chosen) if config.match_params else chosen
