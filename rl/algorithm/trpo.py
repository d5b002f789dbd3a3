"""Numerics of trust-region policy optimisation (arXiv 1502.05477): vectors and functions alone."""

from typing import NamedTuple

import torch


class Solution(NamedTuple):
    """What conjugate gradient found: x [P], A x [P], and rᵀr of the last residual r = b − A x."""

    x: torch.Tensor
    product: torch.Tensor
    residual: float


class LineSearch(NamedTuple):
    """How a line search ended: the accepted fraction of the full step (0 if none), its trials, loss and KL there."""

    fraction: float
    backtracks: int
    loss: float
    kl: float


def conjugate_gradient(product, b, iterations=10, tolerance=1e-10):
    """Solve A x = b for a symmetric positive definite A by conjugate gradient from x = 0.

    Args:
        product: function v [P] -> A v [P].
        b: right-hand side [P].
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


def step_length(x, curvature, max_kl):
    """The factor that scales x to the trust region's border: 1/√(½ xᵀHx / δ) (arXiv 1502.05477, appendix C).

    Args:
        x: direction [P].
        curvature: H x [P].
        max_kl: δ.

    Returns:
        The factor as a float; nan where xᵀHx is not positive and finite.
    """
    quadratic = float(x @ curvature)
    if not 0.0 < quadratic < float("inf"):
        return float("nan")
    return (0.5 * quadratic / max_kl) ** -0.5


def line_search(evaluate, old_loss, max_kl, max_steps=15, ratio=0.8):
    """Backtrack along a step until the loss falls and the KL divergence stays within the trust region.

    Args:
        evaluate: function fraction -> (loss, kl) after that fraction of the step.
        old_loss: loss before the step.
        max_kl: bound on the KL divergence.
        max_steps: the most fractions tried: 1, ratio, ratio², …
        ratio: shrinking factor.
    """
    fraction = 1.0
    for backtracks in range(max_steps):
        loss, kl = evaluate(fraction)
        if loss < old_loss and kl < max_kl:
            return LineSearch(fraction, backtracks, loss, kl)
        fraction *= ratio
    return LineSearch(0.0, max_steps, old_loss, 0.0)
