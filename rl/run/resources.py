"""Memory and open files: what a run or an evaluation needs at the least, held against what the machine has."""

import math
from typing import Any

import numpy as np

from rl import machine
from rl.config import Config
from rl.envs.base import TaskVectorEnv
from rl.errors import UserError
from rl.policies import MLPPolicy
from rl.sampling import processes
from rl.sampling.jobs import tasks_per_job

PROCESS = 10e6  # bytes of a worker's own that hold nothing yet
TASK, EPISODE = 200, 300  # bytes of a task's parameters; of an episode's environment and random streams


def check(
    config: Config,
    env: TaskVectorEnv,
    policy: MLPPolicy,
    num_tasks_option: str,
    training: bool = True,
    interventions: int = 0,
    num_processes: int = 1,
) -> None:
    """Find out whether memory and open files suffice, before anything is made.

    Args:
        num_tasks_option: the name under which the number of evaluated tasks was typed.
        training: whether there is training too.
        interventions: how often what is evaluated after each number of updates is sampled once more.
        num_processes: which share the machine.

    Raises:
        UserError: with the estimate, the options that ask for the most of it, and what the machine has.
    """
    processes.check_descriptors(config.num_workers)
    needs = estimate(config, env, policy, num_tasks_option, training, interventions)
    total, available = sum(needs.values()), machine.memory() / num_processes
    if total > available:
        most = max(needs, key=needs.__getitem__)
        raise UserError(
            f"{most}: at least {machine.readable(total)} of memory would be needed, "
            f"{machine.readable(needs[most])} of it for these; this machine has {machine.readable(available)}"
            + (" for each process" if num_processes > 1 else "")
        )


def estimate(
    config: Config,
    env: TaskVectorEnv,
    policy: MLPPolicy,
    num_tasks_option: str,
    training: bool,
    interventions: int,
) -> dict[str, float]:
    """Bytes that are in use at once, at the least: the options that decide them -> bytes. What is left out (the
    learner's activations, libraries, a third copy) makes a run need more, never less. Arguments as for `check`.
    """
    space: Any = env.single_action_space  # gymnasium says nothing of its shape
    entries = math.prod(env.single_observation_space.shape)
    step = 4 * entries + space.dtype.itemsize * math.prod(space.shape) + np.dtype(float).itemsize + 4
    episode = env.horizon * step
    trained = config.meta_batch_size * training
    stages = (config.num_test_steps + 1) * (1 + interventions)
    tasks = max(trained, config.test_tasks)
    most = max(config.fast_batch_size * training, config.test_batch_size)
    workers = min(max(config.num_workers, 1), machine.cores())
    job = min(tasks_per_job(tasks, config.tasks_per_group, workers), tasks)
    at_work = min(workers, math.ceil(tasks / job))
    theta = 4 * policy.num_params
    adapted = job if config.maml else 0
    return {
        "--meta-batch-size, --fast-batch-size": trained * (TASK + 2 * config.fast_batch_size * episode),
        # The groups' results, and what they are joined to.
        f"{num_tasks_option}, --num-test-steps, --test-batch-size": (
            config.test_tasks * (TASK + 2 * stages * config.test_batch_size * episode)
        ),
        "--num-workers, --fast-batch-size, --test-batch-size": at_work * job * most * (EPISODE + 2 * episode),
        "--num-workers": config.num_workers * PROCESS,
        "--hidden-size, --num-layers": theta * (4 * training + at_work * (2 + adapted)),
    }
