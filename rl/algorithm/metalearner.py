"""The outer step: TRPO (arXiv 1502.05477) on the post-update episodes, as a function of θ through the inner update.

All that it needs of the episodes are sums over tasks (`rl.algorithm.blocks`), whoever computes them.
"""

import math
from typing import NamedTuple

import torch

from rl.algorithm import trpo
from rl.algorithm.blocks import Blocks, ordered_sum
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


NAN = float("nan")
REJECTED = StepReport(NAN, NAN, NAN, 0.0, 0.0, 0, NAN, NAN, 0, accepted=False, rejected_nonfinite=True)


class MetaLearner:
    """Meta-learns θ by TRPO.

    Args:
        policy: `MLPPolicy`.
        options: `rl.algorithm.chunks.Options`.
        others: keyword arguments of `rl.algorithm.blocks.Blocks`: how sums over tasks are computed.
    """

    def __init__(self, policy, options, **others):
        self.policy = policy
        self.options = options
        self.blocks = Blocks(policy, options, **others)

    def step(self, params, before, after):
        """One outer step.

        Args:
            params: θ, dict of tensors.
            before, after: `Episodes` of K tasks before and after the inner update.

        Returns:
            (new θ, `StepReport`); θ is unchanged where no step was acceptable, or where the loss, its gradient or a
            curvature product is not finite (`REJECTED`).
        """
        self.blocks.load(before, after)
        return self.step_on(self.blocks, params)

    def step_on(self, blocks, params):
        """As `step`, on the episodes that `blocks` hold.

        Args:
            blocks: `Blocks`, or what answers like one for the blocks of several processes.
            params: θ, dict of tensors.
        """
        theta_old = flatten(params).to(self.blocks.device, self.blocks.dtype)
        surrogate, gradient = self._surrogate_and_gradient(blocks, theta_old)
        if not (math.isfinite(surrogate) and torch.isfinite(gradient).all()):
            blocks.release()
            return params, REJECTED
        inner_losses, ridge_retries = blocks.notes()
        full_step, solution = self._natural_gradient_step(blocks, gradient)
        blocks.release()
        if not torch.isfinite(solution.product).all():
            return params, REJECTED
        found = self._line_search(blocks, theta_old, full_step, surrogate)
        if found.fraction > 0:
            new = unflatten(self.policy, theta_old - found.fraction * full_step)
            params = {name: new[name].to(value.device, value.dtype).clone() for name, value in params.items()}
        report = StepReport(
            surrogate_before=surrogate,
            surrogate_after=found.loss,
            inner_loss=float(inner_losses.mean()),
            kl=found.kl,
            step_size=found.fraction,
            backtracks=found.backtracks,
            cg_residual=solution.residual,
            gradient_norm=float(gradient.norm()),
            ridge_retries=ridge_retries,
            accepted=found.fraction > 0,
            rejected_nonfinite=False,
        )
        return params, report

    def _surrogate_and_gradient(self, blocks, theta_old):
        """The surrogate loss and its gradient at θ_old (equation 14 of the paper, negated; π_θ acts with φ′(θ)).

            L(θ) = −1/K Σₖ Σ w A π_θ(a|s) / π_θ_old(a|s),   g = ∇L(θ_old)

        Returns:
            (L as a float, g [P])
        """
        total = ordered_sum(blocks.linearize(theta_old))
        return float(total[0]) / blocks.num_tasks, total[1:] / blocks.num_tasks

    def _natural_gradient_step(self, blocks, gradient):
        """The full step: the natural gradient, as long as the trust region allows (appendix C of the paper).

            s = H⁻¹ g by conjugate gradient, H = ∇² D_KL(θ_old) + damping,   β = √(2δ / sᵀ H s)

        Returns:
            (β s [P], nan where sᵀ H s is not positive; the `trpo.Solution` for s)
        """
        options = self.options

        def product(vector):
            return ordered_sum(blocks.product(vector)) / blocks.num_tasks + options.cg_damping * vector

        solution = trpo.conjugate_gradient(product, gradient, options.cg_iters)
        return trpo.step_length(solution.x, solution.product, options.max_kl) * solution.x, solution

    def _line_search(self, blocks, theta_old, full_step, surrogate):
        """The largest of the steps 1, ρ, ρ², … times the full one with L(θ) < L(θ_old) and D_KL(θ) < δ, both means over
        tasks.

        Returns:
            `trpo.LineSearch`
        """
        if not torch.isfinite(full_step).all():
            return trpo.LineSearch(0.0, 0, surrogate, 0.0)
        options = self.options

        def evaluate(fraction):
            total = ordered_sum(blocks.evaluate(theta_old - fraction * full_step))
            return tuple(float(value) / blocks.num_tasks for value in total)

        return trpo.line_search(evaluate, surrogate, options.max_kl, options.ls_max_steps, options.ls_backtrack_ratio)
