"""The outer step: TRPO (arXiv 1502.05477) on the post-update episodes, as a function of θ through the inner update.

Tasks are processed in chunks. A chunk's constants (advantages, old distribution) are made once, its derivatives are
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
        theta_old = flatten(params).to(self.device, self.dtype)
        try:
            chunks = self.chunks(before, after)
        except FloatingPointError:
            return params, REJECTED
        surrogate, gradient, inner_loss = self._surrogate_and_gradient(chunks, theta_old)
        full_step, solution = self._natural_gradient_step(chunks, gradient)
        if not all(torch.isfinite(value).all() for value in (torch.tensor(surrogate), gradient, solution.product)):
            return params, REJECTED
        found = self._line_search(chunks, theta_old, full_step, surrogate)
        if found.fraction > 0:
            new = unflatten(self.policy, theta_old - found.fraction * full_step)
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

    def _surrogate_and_gradient(self, chunks, theta_old):
        """The surrogate loss and its gradient at θ_old (equation 14 of the paper, negated; π_θ acts with φ′(θ)).

            L(θ) = −1/K Σₖ Σ w A π_θ(a|s) / π_θ_old(a|s),   g = ∇L(θ_old)

        Returns:
            (L as a float, g [P], the mean inner loss as a float)
        """
        budget, num_tasks = Budget(self.memory), _num_tasks(chunks)
        linearized = self._map(lambda chunk: chunk.linearize(theta_old, budget), chunks)
        losses, gradients, inner_losses = zip(*linearized, strict=True)
        return float(sum(losses)) / num_tasks, sum(gradients) / num_tasks, float(torch.cat(inner_losses).mean())

    def _natural_gradient_step(self, chunks, gradient):
        """The full step: the natural gradient, as long as the trust region allows (appendix C of the paper).

            s = H⁻¹ g by conjugate gradient, H = ∇² D_KL(θ_old) + damping,   β = √(2δ / sᵀ H s)

        Returns:
            (β s [P], nan where sᵀ H s is not positive; the `trpo.Solution` for s)
        """
        options, num_tasks = self.options, _num_tasks(chunks)

        def product(vector):
            return sum(self._map(lambda chunk: chunk.product(vector), chunks)) / num_tasks + options.cg_damping * vector

        solution = trpo.conjugate_gradient(product, gradient, options.cg_iters)
        for chunk in chunks:
            chunk.release()
        return trpo.step_length(solution.x, solution.product, options.max_kl) * solution.x, solution

    def _line_search(self, chunks, theta_old, full_step, surrogate):
        """The largest of the steps 1, ρ, ρ², … times the full one with L(θ) < L(θ_old) and D_KL(θ) < δ, both means over
        tasks.

        Returns:
            `trpo.LineSearch`
        """
        if not torch.isfinite(full_step).all():
            return trpo.LineSearch(0.0, 0, surrogate, 0.0)
        options, num_tasks = self.options, _num_tasks(chunks)

        def evaluate(fraction):
            parts = self._map(lambda chunk: chunk.evaluate(theta_old - fraction * full_step), chunks)
            return tuple(float(sum(values)) / num_tasks for values in zip(*parts, strict=True))

        return trpo.line_search(evaluate, surrogate, options.max_kl, options.ls_max_steps, options.ls_backtrack_ratio)

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


def _num_tasks(chunks):
    return sum(chunk.num_tasks for chunk in chunks)
