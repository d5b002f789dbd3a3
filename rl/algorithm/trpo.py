"""Trust-region policy optimisation (arXiv 1502.05477): the outer step as published, and its numerics, which know
vectors and functions alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.outer_step import OuterObjective

Vector = Float[Tensor, " P"]


class Options(NamedTuple):
    """Named as on the command line."""

    max_kl: float = 1e-2
    cg_iters: int = 10
    cg_damping: float = 1e-5
    ls_max_steps: int = 15
    ls_backtrack_ratio: float = 0.8


NAN = float("nan")


class TRPO:
    """The natural gradient of the surrogate loss, as long as the trust region allows, and a backtracking line search.

    It keeps no state between steps.
    """

    name = "trpo"

    def __init__(self, options: Options):
        self.options = options
        # Each conjugate-gradient iteration costs one product with J and one with Jᵀ, the gradient one with Jᵀ.
        self.products = options.cg_iters + 1

    def init(self, theta: Vector) -> dict[str, Tensor]:
        """Empty: there is no state."""
        return {}

    def step(
        self, theta: Vector, state: dict[str, Tensor], objective: OuterObjective
    ) -> tuple[Vector, dict[str, Tensor], dict[str, float]]:
        """As `OuterStep.step` (equation 14 and appendix C of the paper).

            s = H⁻¹ g by conjugate gradient,  H = ∇² KL at θ_old + damping,  β = √(2δ / sᵀ H s),
            θ ← θ − ρʲ β s with the least j that lowers the loss while KL < δ

        θ stays where no such j is found, where sᵀ H s is not positive, and where the loss, its gradient or a product
        is not finite: then all metrics but the step's size are NaN.
        """
        options = self.options
        loss, gradient = objective.loss, objective.gradient
        if not (math.isfinite(loss) and torch.isfinite(gradient).all()):
            return theta, state, metrics(Search(0.0, 0, NAN, 0.0), NAN, NAN, NAN)

        def product(vector: Vector) -> Vector:
            return objective.kl_hessian_product(vector) + options.cg_damping * vector

        solution = conjugate_gradient(product, gradient, options.cg_iters)
        if not torch.isfinite(solution.product).all():
            return theta, state, metrics(Search(0.0, 0, NAN, 0.0), NAN, NAN, NAN)
        full_step = step_length(solution.x, solution.product, options.max_kl) * solution.x
        search = Search(0.0, 0, loss, 0.0)
        if torch.isfinite(full_step).all():
            search = line_search(
                lambda fraction: objective.evaluate(theta - fraction * full_step),
                loss,
                options.max_kl,
                options.ls_max_steps,
                options.ls_backtrack_ratio,
            )
        if search.fraction > 0:
            theta = theta - search.fraction * full_step
        return theta, state, metrics(search, loss, float(gradient.norm()), solution.residual)


class Solution(NamedTuple):
    """What conjugate gradient found: x, A x, and rᵀr of the last residual r = b − A x."""

    x: Vector
    product: Vector
    residual: float


class Search(NamedTuple):
    """How a line search ended: the accepted fraction of the full step (0 if none), its trials, loss and KL there."""

    fraction: float
    backtracks: int
    loss: float
    kl: float


def metrics(search: Search, loss: float, gradient_norm: float, residual: float) -> dict[str, float]:
    """A step's metrics; docs/metrics.md defines them."""
    return {
        "trpo/kl": search.kl,
        "trpo/step_size": search.fraction,
        "trpo/backtracks": search.backtracks,
        "trpo/cg_residual": residual,
        "trpo/gradient_norm": gradient_norm,
        "trpo/improvement": loss - search.loss,
    }


def conjugate_gradient(
    product: Callable[[Vector], Vector], b: Vector, iterations: int = 10, tolerance: float = 1e-10
) -> Solution:
    """Solve A x = b for a symmetric positive definite A by conjugate gradient from x = 0.

    Args:
        product: v -> A v.
        iterations: the most products made.
        tolerance: stops once rᵀr is below it.
    """
    x = torch.zeros_like(b)
    residual = b.clone()
    direction = b.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared < tolerance:
            break
        curvature = product(direction)
        step = squared / (direction @ curvature)
        x = x + step * direction
        residual = residual - step * curvature
        squared_before, squared = squared, residual @ residual
        direction = residual + squared / squared_before * direction
    return Solution(x, b - residual, float(squared))


def step_length(x: Vector, curvature: Vector, max_kl: float) -> float:
    """The factor that scales x to the trust region's border: 1/√(½ xᵀHx / δ) (appendix C).

    Args:
        curvature: H x.
        max_kl: δ.

    Returns:
        NaN where xᵀHx is not positive and finite.
    """
    quadratic = float(x @ curvature)
    if not 0.0 < quadratic < float("inf"):
        return NAN
    return (0.5 * quadratic / max_kl) ** -0.5


def line_search(
    evaluate: Callable[[float], tuple[float, float]],
    old_loss: float,
    max_kl: float,
    max_steps: int = 15,
    ratio: float = 0.8,
) -> Search:
    """Backtrack along a step until the loss falls and the KL divergence stays within the trust region.

    Args:
        evaluate: fraction of the step -> (loss, KL) there.
        max_steps: the most fractions tried: 1, ratio, ratio², …
    """
    fraction = 1.0
    for backtracks in range(max_steps):
        loss, kl = evaluate(fraction)
        if loss < old_loss and kl < max_kl:
            return Search(fraction, backtracks, loss, kl)
        fraction *= ratio
    return Search(0.0, max_steps, old_loss, 0.0)
