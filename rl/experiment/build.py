"""From a `Config` to the parts of a run. main and test share it."""

import math
import os

import numpy as np
import torch

from rl import envs, memory, streams
from rl.algorithm import chunks, metalearner
from rl.errors import UserError
from rl.policies import Architecture, make_policy, match_params
from rl.sampling import processes
from rl.sampling.rollout import Origin, Sampling
from rl.sampling.worker_pool import Sampler, Setting

MAX_PARAMS = 100_000_000  # conjugate gradient and the workers' pipes hold several copies of θ
PROCESS = 10e6  # bytes of a worker's own that hold nothing yet
TASK, EPISODE = 200, 300  # bytes of a task's parameters; of an episode's environment and random streams


class Parts:
    """The parts of a run, built once.

    Args:
        config: `Config`.
        task_seed: of the environment's task sets; default: the run's seed.

    Attributes:
        config: the `Config`.
        env: a `TaskVectorEnv` with one episode, which draws tasks and knows the sizes.
        policy: `MLPPolicy`.
        setting: what the workers are told.
    """

    def __init__(self, config, task_seed=None):
        self.config = config
        seed = config.seed if task_seed is None else task_seed
        options = envs.options(config.env_name, config.env_config_path or None, seed, config.horizon or None)
        self.env = envs.make(config.env_name, 1, **options)
        self.policy = make_policy(architecture(config, self.env))
        if self.policy.num_params > MAX_PARAMS:
            raise UserError(
                f"--hidden-size, --num-layers, --nm-size and --num-context-params make a policy of "
                f"{self.policy.num_params:,} parameters; expected at most {MAX_PARAMS:,}"
            )
        self.setting = Setting(config.env_name, options, self.policy.architecture)

    def check_machine(self, test_batch_size="--test-batch-size", training=True, interventions=0):
        """Hold the memory and open files that a run or an evaluation needs at the least against what there is, before
        anything is made.

        Args:
            test_batch_size: the name of that option where it was typed.
            training: whether there is training too.
            interventions: how often every evaluated phase is sampled once more.

        Raises:
            UserError: with the estimate, the options that ask for the most of it, and what the machine has.
        """
        processes.check_descriptors(self.config.num_workers)
        needs = self.needs(test_batch_size, training, interventions)
        total, available = sum(needs.values()), memory.size()
        if total > available:
            most = max(needs, key=needs.get)
            raise UserError(
                f"{most}: at least {memory.told(total)} of memory would be needed, {memory.told(needs[most])} of it "
                f"for these; this machine has {memory.told(available)}"
            )

    def needs(self, test_batch_size, training, interventions):
        """Bytes that are in use at once, at the least: the options that decide them -> bytes. What is left out (the
        learner's activations, libraries, a third copy) makes a run need more, never less.
        """
        config, space = self.config, self.env.single_action_space
        entries = math.prod(self.env.single_observation_space.shape)
        step = 4 * entries + space.dtype.itemsize * math.prod(space.shape) + np.dtype(float).itemsize + 4
        episode = self.env.horizon * step
        trained = config.meta_batch_size * training
        phases = (config.num_test_steps + 1) * (1 + interventions)
        tasks = max(trained, config.test_batch_size)
        group = min(config.tasks_per_group, tasks)
        at_work = min(config.num_workers, os.cpu_count() or 1, math.ceil(tasks / group))
        theta = 4 * self.policy.num_params
        adapted = group if config.maml else 0
        return {
            "--meta-batch-size, --fast-batch-size": trained * (TASK + 2 * config.fast_batch_size * episode),
            # The groups' results, and what they are joined to.
            f"{test_batch_size}, --num-test-steps, --fast-batch-size": (
                config.test_batch_size * (TASK + 2 * phases * config.fast_batch_size * episode)
            ),
            "--tasks-per-group, --fast-batch-size": (
                at_work * group * config.fast_batch_size * (EPISODE + 2 * episode)
            ),
            "--num-workers": config.num_workers * PROCESS,
            "--hidden-size, --num-layers": theta * (4 * training + at_work * (2 + adapted)),
        }

    def sampler(self):
        """Start the workers."""
        config = self.config
        return Sampler(self.setting, config.num_workers, config.tasks_per_group, config.worker_timeout)

    def learner(self):
        """The outer step on the device asked for."""
        config = self.config
        options = chunks.Options(
            gamma=config.gamma,
            gae_lambda=config.tau,
            fast_lr=config.fast_lr,
            first_order=config.first_order,
            max_kl=config.max_kl,
            cg_iters=config.cg_iters,
            cg_damping=config.cg_damping,
            ls_max_steps=config.ls_max_steps,
            ls_backtrack_ratio=config.ls_backtrack_ratio,
            fvp_subsample=config.fvp_subsample,
        )
        place = device(config.device)
        kept = config.learner_memory * memory.GIGABYTE or memory_size(place) / 2
        return metalearner.MetaLearner(self.policy, options, kept, device=place)

    def initial_params(self):
        """θ before training, from the seed."""
        return self.policy.initial_params(streams.generator(streams.key(self.config.seed, purpose=streams.PARAMETERS)))

    def tasks(self, num_tasks, split, iteration, phase):
        """Draw an iteration's tasks."""
        key = streams.key(self.config.seed, iteration, phase, purpose=streams.TASKS)
        return envs.sample_tasks(self.config.env_name, self.env, num_tasks, split, streams.generator(key))

    def check_tasks(self, option, num_tasks, split, phase):
        """Draw the first tasks of a phase, to find out before anything is written whether they can be drawn.

        Raises:
            UserError: naming the option that says how many.
        """
        try:
            self.tasks(num_tasks, split, 0, phase)
        except UserError as error:
            raise UserError(f"{option} {num_tasks}: {error}") from None

    def origin(self, iteration, phase):
        """Where an iteration's random streams begin."""
        return Origin(self.config.seed, iteration, phase, first_task=0)

    def training(self):
        """How to sample while meta-training: one update."""
        return self._sampling((self.config.fast_lr,))

    def evaluation(self):
        """How to sample in an evaluation: `--num-test-steps` updates."""
        config = self.config
        later = config.fast_lr / 2 if config.halve_test_lr else config.fast_lr
        return self._sampling((config.fast_lr,) + (later,) * (config.num_test_steps - 1))

    def _sampling(self, learning_rates):
        config = self.config
        return Sampling(config.fast_batch_size, learning_rates, config.gamma, config.tau)


def architecture(config, env):
    """The policy's `Architecture`: the action space decides the head, the options decide the rest."""
    discrete = hasattr(env.single_action_space, "n")
    chosen = Architecture(
        observation_size=env.single_observation_space.shape[0],
        action_size=int(env.single_action_space.n) if discrete else env.single_action_space.shape[0],
        discrete=discrete,
        num_context_params=0 if config.maml else config.num_context_params,
        hidden_sizes=(config.hidden_size,) * config.num_layers,
        nonlinearity=config.nonlinearity,
        nm_gate=config.nm_gate if config.neuromodulation else None,
        nm_size=config.nm_size,
        nm_gate_bias=config.nm_gate_bias,
    )
    return match_params.widened(chosen) if config.match_params else chosen


def memory_size(place):
    """Bytes of a device's memory."""
    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[1]
    return memory.size()


def device(name):
    """The torch device of `--device`.

    Raises:
        UserError: cuda asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available to this PyTorch; expected cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
