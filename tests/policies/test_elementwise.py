"""Gates and nonlinearities: what is declared by hand against automatic differentiation."""

import pytest
import torch

from rl.policies import GATES, NONLINEARITIES
from tests.support.helpers import LITERAL_GATES, LITERAL_NONLINEARITIES

TABLES = [(GATES, LITERAL_GATES), (NONLINEARITIES, LITERAL_NONLINEARITIES)]
EVERY = pytest.mark.parametrize(
    "made, literal", [pytest.param(table[name], twins[name], id=name) for table, twins in TABLES for name in table]
)


def points():
    """Numbers away from the kinks at 0 and ±1, and some beyond them."""
    return torch.cat([torch.linspace(-3, 3, 50), torch.tensor([-40.0, 40.0])]).double()


@EVERY
def test_value_and_both_derivatives_equal_the_literal_ones(made, literal):
    figures = []
    for function in (made.value, literal):
        x = points().requires_grad_()
        y = function(x)
        derivatives = [torch.zeros_like(x), torch.zeros_like(x)]
        if y.requires_grad:
            (derivatives[0],) = torch.autograd.grad(y.sum(), x, create_graph=True)
            if derivatives[0].requires_grad:
                (derivatives[1],) = torch.autograd.grad(derivatives[0].sum(), x)
        figures.append((y.detach(), derivatives[0].detach(), derivatives[1]))
    for found, expected in zip(*figures, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(made.value(points()), figures[1][0], rtol=1e-12, atol=1e-14)


@EVERY
def test_declared_derivatives_equal_automatic_ones(made, literal):
    if made.derivatives is None:
        pytest.skip("left to automatic differentiation")
    x = points().requires_grad_()
    y = literal(x)
    first = second = torch.zeros_like(x)
    if y.requires_grad:
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        if first.requires_grad:
            (second,) = torch.autograd.grad(first.sum(), x)
    x, y = x.detach(), y.detach()
    assert made.flat == (made.derivatives.first is None) == bool((first == 0).all())
    if not made.flat:
        found = made.derivatives.first(x, y)
        torch.testing.assert_close(found, first.detach(), rtol=1e-12, atol=1e-14)
    if made.derivatives.second_over_first is None:
        assert (second == 0).all()
    else:
        torch.testing.assert_close(made.derivatives.second_over_first(x, y) * found, second, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["hard", "ste"])
def test_signs_are_exactly_one_with_and_without_a_graph(name):
    x = torch.tensor([-2.0, -0.3, -1e-30, -0.0, 0.0, 1e-30, 0.3, 2.0])
    expected = [-1, -1, -1, 1, 1, 1, 1, 1]
    assert GATES[name].value(x).tolist() == expected
    assert GATES[name].value(x.clone().requires_grad_()).tolist() == expected


def test_straight_through_passes_gradients_within_one_alone():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.7, 1.0, 1.01], requires_grad=True)
    (first,) = torch.autograd.grad(GATES["ste"].value(x).sum(), x)
    assert first.tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert GATES["ste"].derivatives.first(x.detach(), None).tolist() == [0, 1, 1, 1, 1, 1, 0]
