"""Proximal policy optimisation as the outer step (ProMP, arXiv 1810.06784, algorithm 1): several gradient steps by
Adam on a loss whose ratios are clipped (`rl.algorithm.terms`).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.outer_step import OuterObjective

Vector = Float[Tensor, " P"]


class Options(NamedTuple):
    """Named as on the command line."""

    num_ppo_steps: int = 5
    learning_rate: float = 1e-3


class PPO:
    """Adam; its moments are the state, kept from one outer step to the next."""

    name = "ppo"
    products = 0  # all that it needs are gradients

    def __init__(self, options: Options):
        self.options = options

    def init(self, theta: Vector) -> dict[str, Tensor]:
        """Adam's moments."""
        return {"step": torch.zeros(()), "exp_avg": torch.zeros_like(theta), "exp_avg_sq": torch.zeros_like(theta)}

    def step(
        self, theta: Vector, state: dict[str, Tensor], objective: OuterObjective
    ) -> tuple[Vector, dict[str, Tensor], dict[str, float]]:
        """As `OuterStep.step`. θ and the moments stay where a loss, gradient or moment is not finite: then all metrics
        but the step's size are NaN.
        """
        stays = theta, state, _metrics(float("nan"), 0.0, float("nan"), float("nan"))
        moved = theta.clone()
        optimizer = torch.optim.Adam([moved], lr=self.options.learning_rate)
        optimizer.state[moved] = {name: value.clone() for name, value in state.items()}
        loss, gradient = objective.loss, objective.gradient
        for number in range(self.options.num_ppo_steps):
            if number:
                loss, gradient = objective.loss_and_gradient(moved)
            if not (math.isfinite(loss) and gradient.isfinite().all()):
                return stays
            moved.grad = gradient
            optimizer.step()
        loss, kl = objective.evaluate(moved)
        moments = dict(optimizer.state[moved])
        # The square of a gradient can overflow where the gradient does not.
        if not (math.isfinite(loss) and math.isfinite(kl) and all(one.isfinite().all() for one in moments.values())):
            return stays
        length, norm = (float(vector.double().norm()) for vector in (moved - theta, objective.gradient))
        return moved, moments, _metrics(kl, length, norm, objective.loss - loss)


def _metrics(kl: float, length: float, gradient_norm: float, improvement: float) -> dict[str, float]:
    """A step's metrics; docs/metrics.md defines them."""
    return {
        "ppo/kl": kl, "ppo/step_size": length, "ppo/gradient_norm": gradient_norm, "ppo/improvement": improvement
    }  # fmt: skip
