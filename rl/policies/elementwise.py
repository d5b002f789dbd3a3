"""Elementwise functions: the gates and the nonlinearities, each declared once, with its derivatives.

The hand-written linearization (`rl.algorithm.linearization`) reads the derivatives declared here. What declares none is
left to automatic differentiation, which is slower. To add one, add a row to a table: options, labels and tests take it
from there.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Numbers = Float[Tensor, "*shape"]
Function = Callable[[Tensor, Tensor], Tensor]  # of x and y = f(x)


class Derivatives(NamedTuple):
    """First and second derivative of y = f(x), from x and y.

    Attributes:
        first: f′(x); None where it is zero everywhere.
        second_over_first: f″(x)/f′(x); None where f″ is zero everywhere.
    """

    first: Function | None
    second_over_first: Function | None


class Elementwise(NamedTuple):
    """A function of each number alone.

    Attributes:
        value: f(x); where x belongs to a graph, differentiable twice by automatic differentiation.
        derivatives: the same derivatives by hand, or None.
        label: a gate's name for people, in legends and reports.
    """

    value: Callable[[Tensor], Tensor]
    derivatives: Derivatives | None = None
    label: str = ""

    @property
    def flat(self) -> bool:
        """Whether it is declared to have no derivative anywhere, so that nothing learns through it."""
        return self.derivatives is not None and self.derivatives.first is None


def relu(x: Numbers) -> Numbers:
    """max(x, 0). In a graph it is a product with the constant 1[x > 0]: its derivatives of any order then are products
    too, which cost a third of PyTorch's own.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        # A comparison that is converted to floats takes three times as long.
        return x * torch.relu(x.detach()).sign_()
    return torch.relu(x)


def sign(x: Numbers) -> Numbers:
    """±1, with sign(0) = +1."""
    # Adding 0 makes −0 positive; copysign takes an eighth of the time of a choice between two constants.
    return torch.copysign(x.new_ones(()), x.detach() + 0.0)


def straight_through(x: Numbers) -> Numbers:
    """sign(x) forwards, clip(x, −1, 1) backwards: the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432;
    the clipped form: Hubara et al. 2016, arXiv 1602.02830, equation 4).
    """
    if torch.is_grad_enabled() and x.requires_grad:
        clipped = torch.clamp(x, -1.0, 1.0)
        return sign(x) + (clipped - clipped.detach())
    return sign(x)


def _tanh_first(x: Numbers, y: Numbers) -> Numbers:
    """1 − y² in one operation."""
    return torch.addcmul(y.new_ones(()), y, y, value=-1)


def _tanh_second_over_first(x: Numbers, y: Numbers) -> Numbers:
    return -2 * y


GATES = {
    # Scales its unit and may flip it.
    "soft": Elementwise(torch.tanh, Derivatives(_tanh_first, _tanh_second_over_first), label="soft"),
    # May flip its unit. As its derivative is zero, the modulators keep the weights that they were drawn with.
    "hard": Elementwise(sign, Derivatives(first=None, second_over_first=None), label="hard"),
    # May flip its unit, and learns to.
    "ste": Elementwise(
        straight_through,
        Derivatives(first=lambda x, y: (x.abs() <= 1).to(x.dtype), second_over_first=None),
        label="straight-through",
    ),
}

NONLINEARITIES = {
    "relu": Elementwise(relu, Derivatives(first=lambda x, y: torch.sign(y), second_over_first=None)),
    # Rounds otherwise than the gate's; published curves were made with either.
    "tanh": Elementwise(
        torch.tanh, Derivatives(first=lambda x, y: 1 - y * y, second_over_first=_tanh_second_over_first)
    ),
    "silu": Elementwise(functional.silu),
}
