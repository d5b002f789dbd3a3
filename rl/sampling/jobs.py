"""What a sampler computes at once: a job, some groups of tasks."""

import math
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rl import envs
from rl.errors import EpisodeError, UserError, text_of
from rl.policies import Architecture, make_policy
from rl.sampling.rollout import AdaptationPlan, Rollouts, StreamName, Tasks, meta_rollout

MOST_TASKS = 20  # of a job: more hardly save time, and cost memory


class WorkerError(Exception):
    """An exception while sampling; its text ends with the traceback of where it arose."""


class WorkerSpec(NamedTuple):
    """What a worker is made from: the environment, and the policy's `Architecture`."""

    env_name: str
    env_options: dict[str, Any]
    architecture: Architecture


class Job(NamedTuple):
    """Groups of tasks: the arguments of `meta_rollout` besides the environment and the policy; θ as arrays."""

    params: dict[str, np.ndarray]
    tasks: Tasks
    plan: AdaptationPlan
    stream: StreamName
    group_size: int

    @property
    def num_groups(self) -> int:
        """How many groups it has."""
        return math.ceil(len(self.tasks) / self.group_size)


@runtime_checkable
class Sampler(Protocol):
    """Samples and adapts on tasks.

    Attributes:
        restarts: how often a worker had to be replaced.
    """

    restarts: int

    def sample(self, params: dict[str, Tensor], tasks: Tasks, plan: AdaptationPlan, stream: StreamName) -> Rollouts:
        """The rollouts of all tasks, in order.

        Args:
            params: θ.
            stream: of the first task.

        Raises:
            WorkerError: an exception in the environment or the policy, or a group that no worker survived.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def tasks_per_job(num_tasks: int, group_size: int, num_workers: int) -> int:
    """Whole groups, equally many for each worker a round, in as few rounds as `MOST_TASKS` allows. How groups are
    gathered in jobs changes speed and memory alone.
    """
    num_groups = math.ceil(num_tasks / group_size)
    most_groups = max(1, MOST_TASKS // group_size)
    rounds = math.ceil(num_groups / (num_workers * most_groups))
    return group_size * math.ceil(num_groups / (num_workers * rounds))


def split(
    params: dict[str, Tensor], tasks: Tasks, plan: AdaptationPlan, stream: StreamName, group_size: int, num_workers: int
) -> Iterator[Job]:
    """Jobs of whole groups, with `tasks_per_job` tasks."""
    # Arrays are sent through the pipe. Tensors would be passed in shared memory, by a thread that prints an error when
    # the other process ends.
    arrays = {name: value.detach().cpu().numpy() for name, value in params.items()}
    size = tasks_per_job(len(tasks), group_size, num_workers)
    for start in range(0, len(tasks), size):
        own = stream._replace(first_task=stream.first_task + start)
        yield Job(arrays, tasks[start : start + size], plan, own, group_size)


class JobRunner:
    """Computes jobs in this process, one after the other."""

    def __init__(self, spec: WorkerSpec):
        self.spec = spec
        self.policy = make_policy(spec.architecture)
        self.environments: dict[int, Any] = {}  # by the number of episodes

    def run(self, job: Job) -> Rollouts:
        """The job's rollouts.

        Raises:
            WorkerError: whatever went wrong, in the environment's code or here; it names task, episode and step.
        """
        spec, num_envs = self.spec, len(job.tasks) * job.plan.num_episodes
        try:
            if num_envs not in self.environments:
                self.environments[num_envs] = envs.make(spec.env_name, num_envs, **spec.env_options)
            # Copies, since the memory that torch itself allocates is aligned: a product's last bits may depend on that.
            params = {name: torch.tensor(value) for name, value in job.params.items()}
            env = self.environments[num_envs]
            return meta_rollout(env, self.policy, params, job.tasks, job.plan, job.stream, job.group_size)
        except (Exception, SystemExit) as error:  # an environment's code may be the user's
            raise WorkerError(self._described(error, job.stream)) from error

    def close(self) -> None:
        """Close the environments."""
        for env in self.environments.values():
            envs.close(env)
        self.environments.clear()

    def _described(self, error: BaseException, stream: StreamName) -> str:
        """What, where, and the traceback unless it is a `UserError`."""
        cause: BaseException | None = error
        place = f"tasks from {stream.first_task}"
        if isinstance(error, EpisodeError):
            place, cause = error.place, error.__cause__
        place = f"({place}, iteration {stream.iteration})"
        if isinstance(cause, UserError):
            return f"{self.spec.env_name}: {cause} {place}"
        if isinstance(cause, FloatingPointError) and str(cause).startswith("action"):
            # θ and what is observed are finite.
            before = str(cause).startswith("action after 0 updates")
            what, advice = ("the policy", "outer step") if before else ("an inner update", "--fast-lr")
            return f"{what} overflowed: the policy's {cause} {place}; a smaller {advice} may help"
        return f"{self.spec.env_name}: {type(cause).__name__}: {text_of(cause)} {place}\n{traceback.format_exc()}"
