import math

import numpy as np
import pytest
import torch

from rl.algorithm import trpo

A = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
B = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def test_conjugate_gradient_solves_a_3_by_3_in_three_iterations():
    # Cramer: det A = 4·(6 − 1) − 1·2 = 18, and with b in place of each column in turn
    #   1·(6 − 1) − 1·(4 − 3) = 4,   4·(4 − 3) − 1·2 = 2,   4·(9 − 2) − 1·3 + 1·1 = 26.
    expected = torch.tensor([4.0, 2.0, 26.0], dtype=torch.float64) / 18
    solution = trpo.conjugate_gradient(lambda v: A @ v, B, iterations=3)
    torch.testing.assert_close(solution.x, expected, rtol=0, atol=1e-14)
    assert solution.residual < 1e-20


def test_first_iteration_is_steepest_descent():
    # From 0: x = (bᵀb / bᵀAb) b; bᵀb = 14; Ab = (6, 10, 8); bᵀAb = 6 + 20 + 24 = 50.
    solution = trpo.conjugate_gradient(lambda v: A @ v, B, iterations=1)
    torch.testing.assert_close(solution.x, B * 14 / 50, rtol=0, atol=1e-15)
    # r = b − 0.28·(6, 10, 8) = (−0.68, −0.8, 0.76); rᵀr = 0.4624 + 0.64 + 0.5776 = 1.68.
    assert solution.residual == pytest.approx(1.68, abs=1e-12)
    # A x = 0.28·(6, 10, 8), without a product of its own.
    torch.testing.assert_close(solution.product, 0.28 * A @ B, rtol=0, atol=1e-14)


def test_conjugate_gradient_equals_numpy():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 20))
    matrix, b = root @ root.T + np.eye(20), rng.normal(size=20)
    tensor = torch.from_numpy(matrix)
    solution = trpo.conjugate_gradient(lambda v: tensor @ v, torch.from_numpy(b), iterations=60, tolerance=1e-24)
    np.testing.assert_allclose(solution.x, np.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solution.product, matrix @ solution.x.numpy(), rtol=1e-9, atol=1e-9)


def test_the_tolerance_is_on_the_squared_residual():
    calls = []

    def product(vector):
        calls.append(vector)
        return vector

    # The identity is solved by one product; bᵀb = 14 lies below a tolerance of 15 from the start.
    assert trpo.conjugate_gradient(product, B).x.tolist() == B.tolist() and len(calls) == 1
    solution = trpo.conjugate_gradient(product, B, tolerance=15.0)
    assert len(calls) == 1 and solution.x.tolist() == [0, 0, 0] and solution.residual == 14.0


def test_step_length_reaches_the_border_of_the_trust_region():
    # xᵀHx = (1, 2, 3)·(6, 10, 8) = 50; s = 1/√(25/0.01) = 0.02; then ½ s² xᵀHx = ½ · 0.0004 · 50 = 0.01 = δ.
    assert trpo.step_length(B, A @ B, 0.01) == pytest.approx(0.02, abs=1e-15)


@pytest.mark.parametrize("curvature", [0.0, -1.0, float("inf"), float("nan")])
def test_step_length_is_nan_without_positive_curvature(curvature):
    assert math.isnan(trpo.step_length(torch.ones(1), torch.tensor([curvature]), 0.01))


NAN = float("nan")


@pytest.mark.parametrize(
    "losses_and_kls, options, expected, tried",
    [
        ([(0.5, 0.05)], {}, (1.0, 0, 0.5, 0.05), [1.0]),
        # Full step: too large a KL; ×½: no lower loss; ×¼: accepted.
        ([(0.0, 0.2), (1.5, 0.05), (0.9, 0.01)], {"ratio": 0.5}, (0.25, 2, 0.9, 0.01), [1.0, 0.5, 0.25]),
        # Both bounds are strict.
        ([(1.0, 0.05), (0.5, 0.1)], {"max_steps": 2}, (0.0, 2, 1.0, 0.0), [1.0, 0.8]),
        *(([wrong] * 15, {}, (0.0, 15, 1.0, 0.0), [0.8**i for i in range(15)])
          for wrong in ((NAN, 0.0), (0.0, NAN), (2.0, 0.0))),
    ],
)  # fmt: skip
def test_line_search_takes_the_first_fraction_that_improves_within_bounds(losses_and_kls, options, expected, tried):
    found, left = [], iter(losses_and_kls)
    step = trpo.line_search(lambda fraction: found.append(fraction) or next(left), old_loss=1.0, max_kl=0.1, **options)
    assert step == expected and found == pytest.approx(tried)
