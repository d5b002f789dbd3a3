import numpy as np
import pytest
import torch

from rl.algorithm import baseline


def inputs(num_tasks=2, horizon=6, num_episodes=5, size=2, seed=0):
    rng = np.random.default_rng(seed)
    observations = torch.from_numpy(rng.normal(size=(num_tasks, horizon, num_episodes, size)))
    lengths = torch.from_numpy(rng.integers(2, horizon + 1, (num_tasks, 1, num_episodes)))
    return observations, (torch.arange(horizon)[:, None] < lengths).double()


def test_features_by_hand():
    # One observation (3, −2) at the second step, t = 2: o, o², 0.02, 0.02², 0.02³, 1.
    observations = torch.tensor([[0.0, 0.0], [3.0, -2.0]], dtype=torch.float64).reshape(1, 2, 1, 2)
    found = baseline.features(observations, torch.ones(1, 2, 1, dtype=torch.float64))
    expected = [3, -2, 9, 4, 0.02, 0.0004, 0.000008, 1]
    torch.testing.assert_close(found[0, 1, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert found[0, 0, 0].tolist() == pytest.approx([0, 0, 0, 0, 0.01, 1e-4, 1e-6, 1], abs=1e-15)


def test_features_are_zero_where_masked():
    observations, mask = inputs()
    found = baseline.features(observations, mask)
    assert (found[mask == 0] == 0).all() and (found[mask == 1][:, -1] == 1).all()


def test_fit_by_hand():
    # One feature x = (1, 2), y = (2, 5), ρ = 1: c = Σxy / (Σx² + ρ) = (2 + 10)/(1 + 4 + 1) = 2; V = (2, 4).
    design = torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    coefficients, retries = baseline.fit(design, torch.tensor([[[2.0], [5.0]]], dtype=torch.float64), ridge=1.0)
    assert coefficients.tolist() == [[2.0]] and retries == 0
    assert baseline.values(design, coefficients).tolist() == [[[2.0], [4.0]]]


def test_fit_equals_ridge_regression_of_each_task_on_its_valid_steps():
    observations, mask = inputs()
    targets = torch.from_numpy(np.random.default_rng(1).normal(size=mask.shape)) * mask
    design = baseline.features(observations, mask)
    coefficients, retries = baseline.fit(design, targets)
    assert retries == 0
    for k in range(2):
        rows, wanted = design[k][mask[k] == 1].numpy(), targets[k][mask[k] == 1].numpy()
        # Ridge regression is least squares with √ρ·I below the rows and zeros below the targets.
        stacked = np.vstack([rows, np.sqrt(1e-5) * np.eye(rows.shape[1])])
        literal = np.linalg.lstsq(stacked, np.concatenate([wanted, np.zeros(rows.shape[1])]))[0]
        np.testing.assert_allclose(coefficients[k], literal, rtol=1e-7, atol=1e-7)


def test_the_ridge_grows_tenfold_until_the_system_can_be_solved():
    # X = four rows of (1, 1): XᵀX = 4·[[1, 1], [1, 1]] is exactly singular, and 4 + ρ = 4 in float64 until ρ exceeds
    # half a unit in the last place, 4.4e-16. From 1e-20 the ridges 1e-20 … 1e-16 fail (5 tries) and 1e-15 succeeds.
    singular = torch.ones(1, 4, 1, 2, dtype=torch.float64)
    targets = torch.ones(1, 4, 1, dtype=torch.float64)
    coefficients, retries = baseline.fit(singular, targets, ridge=1e-20)
    assert retries == 5
    # By symmetry both coefficients are (1 − ρ/8)/2 = ½, and V = 1.
    torch.testing.assert_close(baseline.values(singular, coefficients), targets, rtol=0, atol=1e-9)


def test_only_the_task_in_trouble_gets_a_larger_ridge():
    generator = torch.Generator().manual_seed(0)
    regular = torch.randn(1, 4, 1, 2, generator=generator, dtype=torch.float64)
    targets = torch.randn(2, 4, 1, generator=generator, dtype=torch.float64)
    both = torch.cat([regular, torch.ones(1, 4, 1, 2, dtype=torch.float64)])
    coefficients, retries = baseline.fit(both, targets, ridge=1e-20)
    alone, _ = baseline.fit(regular, targets[:1], ridge=1e-20)
    assert retries == 5
    # Two systems of two equations, as one batch or not: the same but for rounding.
    torch.testing.assert_close(coefficients[0], alone[0], rtol=1e-12, atol=0)


def test_a_ridge_that_never_helps_is_an_error():
    singular = torch.ones(1, 4, 1, 2, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="unsolved"):
        baseline.fit(singular, torch.ones(1, 4, 1, dtype=torch.float64), ridge=1e-40)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["features", "targets"])
def test_what_is_not_finite_is_an_error(wrong, where):
    observations, mask = inputs()
    targets = torch.zeros_like(mask)
    (observations if where == "features" else targets)[0, 0, 0] = wrong
    with pytest.raises(FloatingPointError, match="not finite"):
        baseline.fit(baseline.features(observations, mask), targets)
