import numpy as np
import pytest
import torch

import rl.algorithm.batch
from rl.algorithm import baseline, returns
from rl.algorithm.batch import distinct_rows, prepare
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten
from rl.algorithm.options import Options
from tests.support.helpers import FAST, made_up_episodes, random_params, small_policy


def repeating(num_tasks=3, num_rows=40, size=5, distinct=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(distinct, size)).astype(np.float32)
    return rows[rng.integers(distinct, size=(num_tasks, num_rows))]


def test_distinct_rows_rebuild_the_observations_exactly():
    observations = repeating()
    rows, index = distinct_rows(observations)
    assert rows.shape == (3, 6, 5) and rows.dtype == observations.dtype and index.dtype == np.int64
    for k in range(3):
        np.testing.assert_array_equal(rows[k][index[k]], observations[k])
        assert np.unique(rows[k], axis=0).shape[0] == np.unique(index[k]).size


def test_tasks_with_fewer_distinct_rows_are_padded_with_zeros():
    observations = repeating(num_tasks=2)
    observations[1] = observations[1, 0]
    rows, index = distinct_rows(observations)
    assert (index[1] == 0).all() and (rows[1, 1:] == 0).all()
    np.testing.assert_array_equal(rows[1, 0], observations[1, 0])


def test_rows_that_differ_in_the_last_bit_are_kept_apart():
    observations = repeating(num_tasks=1)
    rows, _ = distinct_rows(observations)
    observations[0, 7, 2] = np.nextafter(observations[0, 7, 2], np.float32(np.inf))
    more, index = distinct_rows(observations)
    assert more.shape[1] == rows.shape[1] + 1
    np.testing.assert_array_equal(more[0][index[0]], observations[0])


def test_few_repeats_are_not_worth_it():
    rng = np.random.default_rng(0)
    assert distinct_rows(rng.normal(size=(2, 40, 5))) is None
    # 20 of 40 rows distinct is the limit; 21 is too many, in the first task or in any other.
    rows = rng.normal(size=(21, 5))
    half = np.concatenate([rows[:20], rows[:20]])
    more = np.concatenate([rows, rows[:19]])
    assert distinct_rows(half[None])[0].shape == (1, 20, 5)
    assert distinct_rows(more[None]) is None
    assert distinct_rows(np.stack([half, more])) is None


def test_prepare_equals_its_parts_task_by_task():
    policy = small_policy()
    before, after = made_up_episodes(policy, seed=0), made_up_episodes(policy, seed=1)
    batches, retries = prepare(before, [before, after], 0.9, 0.95, torch.float64)
    assert retries == 0
    for k in range(3):
        one = [torch.from_numpy(array[k : k + 1]) for array in before.arrays()]
        targets = returns.discounted_returns(one[2], 0.9)
        coefficients, _ = baseline.fit(baseline.features(one[0], one[3]), targets * one[3])
        for episodes, batch in zip((before, after), batches, strict=True):
            observations, actions, rewards, mask = (torch.from_numpy(a[k : k + 1]) for a in episodes.arrays())
            # The baseline of the episodes before the update serves those after it, too.
            values = baseline.values(baseline.features(observations, mask), coefficients)
            raw = returns.generalized_advantages(rewards, values, 0.9, 0.95)
            expected = returns.normalize(raw, mask).flatten()
            torch.testing.assert_close(batch.advantages[k], expected, rtol=0, atol=1e-9)
            torch.testing.assert_close(batch.weights[k], returns.step_weights(mask).flatten())
            assert torch.equal(batch.observations[k], observations.flatten(1, 2)[0]) and batch.rows is None
            assert torch.equal(batch.actions[k], actions.flatten(1, 2)[0])


def test_prepare_converts_to_the_dtype_asked_for():
    policy = small_policy("categorical")
    episodes = made_up_episodes(policy, distinct=3)
    (batch,), _ = prepare(episodes, [episodes], 0.9, 0.95)
    floats = (batch.observations, batch.advantages, batch.weights)
    assert {value.dtype for value in floats} == {torch.float32}
    assert batch.actions.dtype == torch.int64 and batch.rows.dtype == torch.int64


def test_weights_of_distinct_observations_are_sums_over_their_steps():
    policy = small_policy()
    episodes = made_up_episodes(policy, distinct=3)
    (batch,), _ = prepare(episodes, [episodes], 0.9, 0.95, torch.float64)
    for k in range(3):
        for u in range(batch.observations.shape[1]):
            expected = batch.weights[k][batch.rows[k] == u].sum()
            torch.testing.assert_close(batch.observation_weights[k, u], expected)
    torch.testing.assert_close(batch.observation_weights.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
@pytest.mark.parametrize("head", ["normal", "categorical"])
def test_distinct_observations_give_the_same_figures(monkeypatch, head, adaptation):
    policy = small_policy(head, "soft", adaptation)
    before, after = (made_up_episodes(policy, distinct=4, seed=seed) for seed in (0, 1))
    vector = flatten(random_params(policy))
    direction = flatten(random_params(policy, seed=5))

    def figures():
        chunk = Chunk(policy, vector, (before, after), Options(fast_lr=0.3, **FAST), products=2, dtype=torch.float64)
        at_old = (chunk.loss, chunk.gradient, chunk.inner_losses, chunk.kl_hessian_product(direction))
        return chunk.terms[0].before[0].rows is None, (*at_old, *chunk.evaluate(vector + 0.01))

    without_repeats, gathered = figures()
    monkeypatch.setattr(rl.algorithm.batch, "_WORTHWHILE", 0)
    plain, expected = figures()
    assert plain and not without_repeats
    for value, other in zip(gathered, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12)


def test_a_subsample_keeps_a_share_of_the_steps_with_all_of_the_weight():
    policy = small_policy()
    episodes = made_up_episodes(policy)
    (batch,), _ = prepare(episodes, [episodes], 0.9, 0.95, torch.float64)
    part = batch.subsample(0.5)
    # Of 6 · 4 steps, 12: each with its own observation, action and advantage.
    assert part.weights.shape == part.advantages.shape == (3, 12) and part.rows is None
    positions = [batch.advantages[0].tolist().index(value) for value in part.advantages[0].tolist() if value != 0]
    kept = part.advantages[0] != 0
    assert torch.equal(part.observations[0][kept], batch.observations[0][positions])
    assert torch.equal(part.actions[0][kept], batch.actions[0][positions])
    ratio = part.weights[0][kept] / batch.weights[0][positions]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    torch.testing.assert_close(part.weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert batch.subsample(1.0) is batch


def test_where_observations_repeat_nothing_is_left_out():
    policy = small_policy()
    episodes = made_up_episodes(policy, distinct=3)
    (batch,), _ = prepare(episodes, [episodes], 0.9, 0.95, torch.float64)
    assert batch.rows is not None and batch.subsample(0.1) is batch
