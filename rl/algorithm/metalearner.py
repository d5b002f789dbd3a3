"""The outer step: TRPO on the post-update episodes, as a function of θ through the inner update.

Work is walked in chunks of tasks. A chunk's constants (advantages, old distribution) are made once, its derivatives are
kept for all conjugate-gradient products, and chunks are spread over a pool of threads with one torch thread each.
Results are added in the order of the chunks, so that every byte is independent of the number of threads.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from rl.algorithm import trpo
from rl.algorithm.batch import distinct_rows
from rl.algorithm.chunks import Budget, Chunk
from rl.algorithm.jacobians import flatten, unflatten


class StepReport(NamedTuple):
    """What an outer step did, for the log (docs/metrics.md defines each)."""

    surrogate_before: float
    surrogate_after: float
    inner_loss: float
    kl: float
    step_size: float
    backtracks: int
    cg_residual: float
    gradient_norm: float
    ridge_retries: int
    accepted: bool
    rejected_nonfinite: bool


WORK = 100e6  # network rows × weights of a chunk, about: 2 to 3 ms of multiplications
NAN = float("nan")
REJECTED = StepReport(NAN, NAN, NAN, 0.0, 0.0, 0, NAN, NAN, 0, accepted=False, rejected_nonfinite=True)


class MetaLearner:
    """Meta-learns θ by TRPO.

    Args:
        policy: `MLPPolicy`.
        options: `rl.algorithm.chunks.Options`.
        memory: bytes that may be kept for curvature products; what lies beyond is computed again for each.
        rows: the most network rows (tasks × distinct observations) of a chunk; decides the last bits of the results.
        threads: how many chunks are worked on at once; decides nothing but speed. Default: all cores.
        dtype, device: of the computation.
    """

    def __init__(
        self, policy, options, memory=float("inf"), rows=2048, threads=None, dtype=torch.float32, device="cpu"
    ):
        self.policy = policy
        self.options = options
        self.memory = memory
        self.rows = rows
        self.dtype = dtype
        self.device = torch.device(device)
        self.pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)

    def step(self, params, before, after):
        """One outer step.

        Args:
            params: θ, dict of tensors.
            before, after: `Episodes` of K tasks before and after the inner update.

        Returns:
            (new θ, `StepReport`); θ is unchanged where no step was acceptable, or where the loss, its gradient or a
            curvature product is not finite (`REJECTED`).
        """
        options = self.options
        num_tasks = before.mask.shape[0]
        old = flatten(params).to(self.device, self.dtype)
        try:
            chunks = self.chunks(before, after)
        except FloatingPointError:
            return params, REJECTED

        budget = Budget(self.memory)
        linearized = self._map(lambda chunk: chunk.linearize(old, budget), chunks)
        surrogate = float(sum(loss for loss, _, _ in linearized)) / num_tasks
        gradient = sum(part for _, part, _ in linearized) / num_tasks
        inner_loss = float(torch.cat([losses for _, _, losses in linearized]).mean())

        def product(vector):
            return sum(self._map(lambda chunk: chunk.product(vector), chunks)) / num_tasks + options.cg_damping * vector

        def evaluate(fraction):
            parts = self._map(lambda chunk: chunk.evaluate(old - fraction * full_step), chunks)
            return tuple(float(sum(values)) / num_tasks for values in zip(*parts, strict=True))

        solution = trpo.conjugate_gradient(product, gradient, options.cg_iters)
        for chunk in chunks:
            chunk.release()
        if not all(torch.isfinite(value).all() for value in (torch.tensor(surrogate), gradient, solution.product)):
            return params, REJECTED
        full_step = trpo.step_length(solution.x, solution.product, options.max_kl) * solution.x
        if torch.isfinite(full_step).all():
            found = trpo.line_search(
                evaluate, surrogate, options.max_kl, options.ls_max_steps, options.ls_backtrack_ratio
            )
        else:
            found = trpo.LineSearch(0.0, 0, surrogate, 0.0)
        if found.fraction > 0:
            new = unflatten(self.policy, old - found.fraction * full_step)
            params = {name: new[name].to(value.device, value.dtype).clone() for name, value in params.items()}
        report = StepReport(
            surrogate_before=surrogate,
            surrogate_after=found.loss,
            inner_loss=inner_loss,
            kl=found.kl,
            step_size=found.fraction,
            backtracks=found.backtracks,
            cg_residual=solution.residual,
            gradient_norm=float(gradient.norm()),
            ridge_retries=sum(chunk.ridge_retries for chunk in chunks),
            accepted=found.fraction > 0,
            rejected_nonfinite=False,
        )
        return params, report

    def chunks(self, before, after):
        """Cut the tasks into `Chunk`s."""
        num_tasks = before.mask.shape[0]
        size = self._chunk_size(before)

        def make(start):
            stop = min(start + size, num_tasks)
            return Chunk(
                self.policy,
                before.tasks(start, stop),
                after.tasks(start, stop),
                self.options,
                self.dtype,
                self.device,
            )

        return self._map(make, range(0, num_tasks, size))

    def _chunk_size(self, before):
        """Tasks of a chunk: few enough for its activations to stay in the cache, and enough work for its overhead not
        to matter; a function of the episodes alone.
        """
        num_tasks, horizon, num_episodes, size = before.observations.shape
        first = distinct_rows(before.observations[:1].reshape(1, horizon * num_episodes, size))
        rows = horizon * num_episodes if first is None else first[0].shape[1]
        count = max(round(num_tasks * rows * self.policy.num_params / WORK), math.ceil(num_tasks * rows / self.rows), 1)
        return math.ceil(num_tasks / min(count, num_tasks))

    def _map(self, function, items):
        return list(self.pool.map(function, items))
