"""A run shared out among ranks: each samples its part of the tasks, keeps the episodes, and computes their sums.

θ-sized vectors, scalars and summaries travel between ranks; episodes stay where they were sampled. Tasks are dealt in
whole groups or blocks, which are the same for any number of ranks, and so are the bytes of every result.
"""

import math
import re

import numpy as np
import torch

from rl.errors import UserError
from rl.evaluation.evaluate import Summary
from rl.ranks import part
from rl.run.interrupts import lacks_memory
from rl.sampling.rollout import Rollouts
from rl.sampling.worker_pool import WorkerError

END = "end"


class RunError(UserError):
    """A run cannot go on; what it has saved stays."""

    status = 1


def told(error):
    """An exception as a `RunError`, where it is the user's, a worker's or of PyTorch's memory; else None."""
    # Where CUDA or a library of its asks for memory, and not PyTorch, the error has no class of its own.
    full = isinstance(error, RuntimeError) and re.search(
        r"CUDA error: out of memory|_ALLOC_FAILED|Cuda failure .*out of memory", str(error)
    )
    if full or isinstance(error, torch.OutOfMemoryError):
        return RunError(
            "the GPU has not enough memory for the outer step; a smaller --learner-memory may help, or --device cpu"
        )
    if lacks_memory(error):
        return RunError(
            "the machine has not enough memory for the outer step; a smaller --learner-memory, fewer --learner-threads "
            "or fewer --num-workers may help"
        )
    return RunError(str(error)) if isinstance(error, (WorkerError, UserError)) else None


class Share:
    """What one rank does.

    Args:
        experiment: `rl.run.build.Setup`, its ranks joined.
        learner: `rl.algorithm.metalearner.MetaLearner`, where there is something to learn; ranks other than 0 use its
            blocks alone.

    Attributes:
        phases: the `Rollouts` of this rank's part of the tasks sampled last; None where it had none.
    """

    def __init__(self, experiment, learner=None):
        self.rank, self.size = experiment.ranks.rank, experiment.ranks.size
        self.learner = learner
        self.blocks = learner and learner.blocks
        self.phases = None
        self.sampler = experiment.sampler()

    def sample(self, params, tasks, sampling, origin, unit):
        """Sample and adapt on this rank's part of the tasks.

        Args:
            params: θ, dict of tensors.
            tasks: list of K tasks, all ranks'.
            sampling, origin: as for `rl.sampling.worker_pool.WorkerPool.sample`.
            unit: how many tasks are dealt together.

        Returns:
            (a `Summary` of each phase, None where there are no tasks for this rank; workers restarted so far)
        """
        start, stop = (bound * unit for bound in part(math.ceil(len(tasks) / unit), self.rank, self.size))
        own = tasks[start:stop]
        self.phases = None
        if not own:
            return None, self.sampler.restarts
        origin = origin._replace(first_task=origin.first_task + start)
        self.phases = self.sampler.sample(params, own, sampling, origin)
        return tuple(map(Summary.of, self.phases.episodes)), self.sampler.restarts

    def kept(self):
        """`phases`."""
        return self.phases

    def linearize(self, vector):
        """`Blocks.linearize` on the episodes sampled last."""
        self.blocks.load(*self.phases.episodes)
        return self.blocks.linearize(vector)

    def do(self, name, *arguments):
        """Call a method of its own, or one of its blocks."""
        return getattr(self if hasattr(self, name) else self.blocks, name)(*arguments)


class Team:
    """The shares of all ranks: on rank 0 one asks it, elsewhere it serves.

    It answers like `rl.algorithm.blocks.Blocks` for the tasks sampled last.

    Args:
        experiment: `rl.run.build.Setup`, its ranks joined.
        learner: as for `Share`.
        restarts: of workers, before.

    Attributes:
        num_tasks: K, of the tasks sampled last.
        restarts: of workers, on all ranks.
    """

    def __init__(self, experiment, learner=None, restarts=0):
        self.ranks = experiment.ranks
        if learner:
            self.ranks.use(learner.blocks.device, learner.blocks.dtype)
        self.share = Share(experiment, learner)
        self.restarts = self._restarts_before = restarts

    def sample(self, params, tasks, sampling, origin, unit):
        """Sample and adapt on tasks; arguments as for `Share.sample`.

        Returns:
            a `Summary` of all K tasks for each phase
        """
        count = math.ceil(len(tasks) / unit)
        self.num_tasks = len(tasks)
        bounds = [part(count, rank, self.ranks.size) for rank in range(self.ranks.size)]
        self._counts = [stop - start for start, stop in bounds]
        found, restarts = zip(*self._ask("sample", params, tasks, sampling, origin, unit), strict=True)
        self.restarts = self._restarts_before + sum(restarts)
        parts = [summaries for summaries in found if summaries]
        return tuple(Summary.concatenate(same) for same in zip(*parts, strict=True))

    def step(self, params):
        """One outer step on the episodes sampled last, as `rl.algorithm.metalearner.MetaLearner.step`."""
        return self.share.learner.step_on(self, params)

    def phases(self):
        """The `Rollouts` of all tasks sampled last, brought here."""
        return Rollouts.concatenate([phases for phases in self._ask("kept") if phases])

    def linearize(self, vector):
        """[B, 1 + P]"""
        return self._sums("linearize", vector)

    def notes(self):
        """(inner losses [K], number of ridge retries)"""
        losses, retries = zip(*self._ask("notes"), strict=True)
        return np.concatenate(losses), sum(retries)

    def product(self, vector):
        """[B, P]"""
        return self._sums("product", vector)

    def evaluate(self, vector):
        """[B, 2]"""
        return self._sums("evaluate", vector)

    def release(self):
        """On all ranks."""
        self._ask("release")

    def serve(self):
        """Do what rank 0 asks for, until it ends."""
        try:
            while True:
                (name, arguments), vector = self.ranks.broadcast()
                if name == END:
                    return
                if vector is None:
                    self.ranks.gather(self.share.do(name, *arguments))
                else:
                    self.ranks.gather_rows(self.share.do(name, vector), None)
        except (WorkerError, RuntimeError) as error:
            raise told(error) or error from None

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if error is None and self.ranks.rank == 0:
            self.ranks.broadcast((END, ()))
        self.share.sampler.close()

    def _ask(self, name, *arguments):
        """What a method of every rank's share returns."""
        self.ranks.broadcast((name, arguments))
        return self.ranks.gather(self.share.do(name, *arguments))

    def _sums(self, name, vector):
        """The rows of all blocks that a method of every rank's share returns."""
        self.ranks.broadcast((name, ()), vector)
        return self.ranks.gather_rows(self.share.do(name, vector), self._counts)
