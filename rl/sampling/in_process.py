"""Sampling in the process itself (`--num-workers 0`): for debuggers, profilers and notebooks, and for environments that
are defined in the program or in a notebook's cell. The bytes are those of worker processes.
"""

import torch
from torch import Tensor

from rl.sampling.jobs import JobRunner, WorkerSpec, split
from rl.sampling.rollout import AdaptationPlan, Rollouts, StreamName, Tasks


class InProcessSampler:
    """A `Sampler` without processes of its own."""

    restarts = 0

    def __init__(self, spec: WorkerSpec, tasks_per_group: int):
        self.runner = JobRunner(spec)
        self.tasks_per_group = tasks_per_group

    def sample(self, params: dict[str, Tensor], tasks: Tasks, plan: AdaptationPlan, stream: StreamName) -> Rollouts:
        """As `Sampler.sample`."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: with more, products round otherwise
        try:
            jobs = split(params, tasks, plan, stream, self.tasks_per_group, num_workers=1)
            return Rollouts.concatenate([self.runner.run(job) for job in jobs])
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Close the environments."""
        self.runner.close()
