"""From a `Config` to its environment, policy, sampler and learner. main.py and test.py share it."""

import dataclasses
import math
import os

import torch

from rl import envs, machine, streams
from rl.algorithm import blocks, chunks, metalearner
from rl.errors import UserError
from rl.policies import Architecture, make_policy, match_params
from rl.ranks import Ranks
from rl.sampling.rollout import AdaptationPlan, StreamName
from rl.sampling.worker_pool import WorkerPool, WorkerSpec

MAX_PARAMS = 100_000_000  # conjugate gradient and the workers' pipes hold several copies of θ


class Setup:
    """What a `Config` describes: the environment and the policy, and how they are sampled and learnt from.

    Args:
        config: `Config`.
        task_seed: of the environment's task sets; default: the run's seed.
        env_options: the environment's, as from `rl.envs.options`; default: as the `Config` says.
        ranks: `rl.ranks.Ranks`, which share the machine's cores, memory and GPUs; default: one process alone.

    Attributes:
        config: the `Config`.
        tasks_per_block: tasks whose sums the outer step adds up first, and which one rank computes.
        env: a `TaskVectorEnv` with one episode, which draws tasks and knows the sizes.
        policy: `MLPPolicy`.
        setting: the `WorkerSpec` that the workers are told.
        learner_options: the `rl.algorithm.chunks.Options` of the outer step.
    """

    def __init__(self, config, task_seed=None, env_options=None, ranks=None):
        self.config = config
        self.ranks = ranks or Ranks({})
        seed = config.seed if task_seed is None else task_seed
        if env_options is None:
            env_options = envs.options(config.env_name, config.env_config_path or None, seed, config.horizon or None)
        self.env = envs.make(config.env_name, 1, **env_options)
        self.policy = make_policy(architecture(config, self.env))
        if self.policy.num_params > MAX_PARAMS:
            raise UserError(
                f"--hidden-size, --num-layers, --nm-size and --num-context-params make a policy of "
                f"{self.policy.num_params:,} parameters; expected at most {MAX_PARAMS:,}"
            )
        self.setting = WorkerSpec(config.env_name, env_options, self.policy.architecture)
        self.tasks_per_block = config.tasks_per_block or self._tasks_per_block()
        self.learner_options = chunks.Options(
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

    def sampler(self):
        """Start the workers."""
        config = self.config
        return WorkerPool(self.setting, config.num_workers, config.tasks_per_group, config.worker_timeout)

    def learner(self):
        """The outer step on the device asked for.

        Raises:
            UserError: it cannot be used.
        """
        config, ranks = self.config, self.ranks
        place = device(config.device, ranks.local_rank)
        how, available = {"size": self.tasks_per_block, "device": place}, machine.memory() / ranks.local_size
        if place.type == "cuda":
            available = use_gpu(place, config.tf32)  # a GPU is one rank's own
        else:
            how["threads"] = config.learner_threads or max(1, machine.cores() // ranks.local_size)
        kept = config.learner_memory * machine.GIGABYTE or available / 2
        return metalearner.MetaLearner(self.policy, self.learner_options, memory=kept, **how)

    def largest_share(self):
        """The `Config` with as many tasks as the rank has that has the most, for estimates."""
        config, size = self.config, self.ranks.size

        def most(count, unit):
            return min(count, math.ceil(math.ceil(count / unit) / size) * unit)

        return dataclasses.replace(
            config,
            meta_batch_size=most(config.meta_batch_size, self.tasks_per_block),
            test_batch_size=most(config.test_batch_size, config.tasks_per_group),
        )

    def check_blocks(self):
        """Find out whether every rank has something to learn from.

        Raises:
            UserError: there are more ranks than blocks of tasks.
        """
        config, size = self.config, self.tasks_per_block
        count = math.ceil(config.meta_batch_size / size)
        if self.ranks.size > count:
            raise UserError(
                f"{self.ranks.size} processes for {count} block{'s' if count > 1 else ''} of {size} tasks "
                f"(--meta-batch-size {config.meta_batch_size}); expected at most as many processes as blocks, or a "
                f"smaller --tasks-per-block, a multiple of --tasks-per-group ({config.tasks_per_group})"
            )

    def _tasks_per_block(self):
        """As many as the outer step's work is worth on its device: a function of the configuration alone."""
        config, env = self.config, self.env
        steps = env.horizon * config.fast_batch_size
        rows = min(steps, env.num_observations or steps)
        return blocks.tasks_per_block(
            config.meta_batch_size,
            config.tasks_per_group,
            rows,
            self.policy.num_params,
            blocks.WORK[kind_of_device(config.device)],
        )

    def initial_params(self):
        """θ before training, from the seed."""
        return self.policy.initial_params(streams.generator(streams.key(self.config.seed, purpose=streams.PARAMETERS)))

    def sample_tasks(self, num_tasks, split, iteration, phase):
        """Draw an iteration's tasks: a list of dicts.

        Args:
            num_tasks: how many.
            split: train or test.
            iteration, phase: name the random stream (`streams.TRAIN` or `streams.EVALUATE`).
        """
        key = streams.key(self.config.seed, iteration, phase, purpose=streams.TASKS)
        return envs.sample_tasks(self.config.env_name, self.env, num_tasks, split, streams.generator(key))

    def first_tasks(self, option, num_tasks, split, phase):
        """Draw the first tasks of a phase, before anything is written: a list of dicts.

        Raises:
            UserError: naming the option that says how many.
        """
        try:
            return self.sample_tasks(num_tasks, split, 0, phase)
        except UserError as error:
            raise UserError(f"{option} {num_tasks}: {error}") from None

    def origin(self, iteration, phase):
        """The `StreamName` of an iteration's random streams."""
        return StreamName(self.config.seed, iteration, phase, first_task=0)

    def train_sampling(self):
        """The `AdaptationPlan` of meta-training: episodes before and after one update."""
        return self._sampling((self.config.fast_lr,))

    def test_sampling(self):
        """The `AdaptationPlan` of an evaluation: episodes before and after each of `--num-test-steps` updates."""
        config = self.config
        later = config.fast_lr / 2 if config.halve_test_lr else config.fast_lr
        return self._sampling((config.fast_lr,) + (later,) * (config.num_test_steps - 1))

    def _sampling(self, learning_rates):
        config = self.config
        return AdaptationPlan(config.fast_batch_size, learning_rates, config.gamma, config.tau)


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


def kind_of_device(name):
    """Where `--device` puts the outer step, as far as there is one: cpu or cuda."""
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def device(name, number=0):
    """The torch device of `--device`.

    Args:
        name: the option's value.
        number: which of the machine's GPUs.

    Raises:
        UserError: cuda asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available to this PyTorch; expected cpu or auto")
    name = kind_of_device(name)
    if name == "cuda" and number >= torch.cuda.device_count():
        raise UserError(
            f"--device cuda: this machine has {torch.cuda.device_count()} GPUs, one for each process, and this is its "
            f"process {number + 1}; expected fewer processes (--nproc-per-node), or --device cpu"
        )
    return torch.device(name, number if name == "cuda" else None)


def use_gpu(place, tf32):
    """Have this process compute on a GPU, the same bytes each time, and round as asked for.

    Sums over repeated observations are then sorted, where they would be added up in any order. cuBLAS gets a fixed
    workspace by a variable that is read when it is first used; some versions of PyTorch refuse matrix products without
    it, others have a fixed one of their own. Memory that is not written yet need not be cleared: nothing reads it.

    Args:
        place: the torch device.
        tf32: whether factors of float32 matrix products may be rounded to TensorFloat-32.

    Returns:
        bytes of its memory

    Raises:
        UserError: it is there, and full, or another process's alone.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        torch.cuda.set_device(place)
        return torch.cuda.mem_get_info(place)[1]
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--device cuda: GPU {place.index} cannot be used: {reason}; expected one that has memory left and that no "
            "other process has to itself, or --device cpu"
        ) from None
