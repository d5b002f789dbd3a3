import numpy as np
import pytest
import torch

from rl.algorithm import returns


def column(*values):
    """[T, 1]: one episode."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_discounted_returns_by_hand():
    # γ = ½: R₃ = 4;  R₂ = 2 + ½·4 = 4;  R₁ = 1 + ½·4 = 3.
    torch.testing.assert_close(returns.discounted_returns(column(1, 2, 4), 0.5), column(3, 4, 4))


def test_an_episode_that_ended_early_adds_nothing_later():
    # Two episodes, the second ends after two of three steps: R₂ = 2, R₁ = 1 + ½·2 = 2.
    rewards = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 0.0]])
    expected = torch.tensor([[3.0, 2.0], [4.0, 2.0], [4.0, 0.0]])
    torch.testing.assert_close(returns.discounted_returns(rewards, 0.5), expected)


def test_advantages_by_hand():
    # γ = ½, λ = ½, γλ = ¼; r = (1, 2, 4), V = (2, 4, 6), no value after the end.
    # δ₃ = 4 + ½·0 − 6 = −2;  δ₂ = 2 + ½·6 − 4 = 1;  δ₁ = 1 + ½·4 − 2 = 1.
    # A₃ = −2;  A₂ = 1 − ¼·2 = 0.5;  A₁ = 1 + ¼·0.5 = 1.125.
    advantages = returns.generalized_advantages(column(1, 2, 4), column(2, 4, 6), 0.5, 0.5)
    torch.testing.assert_close(advantages, column(1.125, 0.5, -2))


def random_inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 7, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_lambda_one_is_return_minus_value():
    rewards, values = random_inputs()
    advantages = returns.generalized_advantages(rewards, values, 0.9, 1.0)
    torch.testing.assert_close(advantages, returns.discounted_returns(rewards, 0.9) - values, rtol=0, atol=1e-12)


def test_advantages_equal_the_plain_double_sum():
    rewards, values = random_inputs()
    advantages = returns.generalized_advantages(rewards, values, 0.9, 0.7)
    horizon = rewards.shape[1]
    for t in range(horizon):
        total = torch.zeros(3, 5, dtype=torch.float64)
        for later in range(t, horizon):
            following = values[:, later + 1] if later + 1 < horizon else 0.0
            total += (0.9 * 0.7) ** (later - t) * (rewards[:, later] + 0.9 * following - values[:, later])
        torch.testing.assert_close(advantages[:, t], total, rtol=0, atol=1e-12)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        returns.generalized_advantages(torch.zeros(3, 2), torch.zeros(3, 1), 0.9, 1.0)


def test_normalize_by_hand():
    # Valid entries 1, 3, 5, 7: mean 4, population variance (9 + 1 + 1 + 9)/4 = 5. The 100 is masked.
    advantages = torch.tensor([[1.0, 3.0], [5.0, 7.0], [100.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[-3.0, -1.0], [1.0, 3.0], [0.0, 0.0]], dtype=torch.float64) / (5**0.5 + 1e-8)
    torch.testing.assert_close(returns.normalize(advantages, mask), expected, rtol=0, atol=1e-15)


def test_normalize_treats_every_task_by_itself():
    advantages, _ = random_inputs()
    mask = (torch.arange(7)[:, None] < torch.tensor([7, 3, 1, 5, 6])).double().expand(3, 7, 5)
    together = returns.normalize(advantages, mask)
    for k in range(3):
        valid = together[k][mask[k] == 1]
        assert abs(valid.mean()) < 1e-12
        assert abs(valid.std(correction=0) - 1) < 1e-7  # 1e-8 is added to the standard deviation
        torch.testing.assert_close(together[k], returns.normalize(advantages[k], mask[k]))
    assert (together[mask == 0] == 0).all()


def test_normalize_of_equal_advantages_is_zero():
    ones = torch.ones(2, 2, dtype=torch.float64)
    torch.testing.assert_close(returns.normalize(3 * ones, ones), 0 * ones)


def test_step_weights_are_the_mean_over_episodes_of_means_over_steps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 5, 3))
    lengths = np.array([[5, 2, 1], [3, 3, 4]])
    mask = torch.from_numpy((np.arange(5)[None, :, None] < lengths[:, None, :]).astype(np.float64))
    weights = returns.step_weights(mask)
    for k in range(2):
        literal = np.mean([np.mean(values[k, : lengths[k, e], e]) for e in range(3)])
        assert float((weights[k] * torch.from_numpy(values[k])).sum()) == pytest.approx(literal, abs=1e-14)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2, dtype=torch.float64))
