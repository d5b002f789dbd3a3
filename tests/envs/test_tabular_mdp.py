import numpy as np
import pytest

from rl import streams
from rl.envs.contract import keys, roll
from rl.envs.tabular_mdp import TabularMDP
from tests.support.env_contract import EnvironmentContract


class TestContract(EnvironmentContract):
    name = "TabularMDP-v0"


def test_it_equals_the_plain_twin():
    env = TabularMDP(6)
    rng = np.random.default_rng(0)
    tasks = env.sample_tasks(6, "train", rng)
    actions = rng.integers(5, size=(10, 6))
    record = roll(env, keys(6), tasks, actions)
    for i, key in enumerate(keys(6)):
        stream = streams.generator(key)
        noise, luck = stream.standard_normal(10), stream.random(10)
        state = 0
        for t in range(10):
            assert record["observations"][t, i].tolist() == [float(s == state) for s in range(10)]
            action = actions[t, i]
            assert record["rewards"][t, i] == tasks[i]["rewards_mean"][state][action] + noise[t]
            probabilities = tasks[i]["transitions"][state][action]
            total, state = probabilities[0], 0
            while luck[t] >= total and state < 9:
                state += 1
                total += probabilities[state]
    assert not record["terminated"].any()
    assert record["truncated"][9].all() and not record["truncated"][8].any()


def chain(reward):
    """State s leads to s + 1 (the last to itself) whatever the action; action a earns `reward` · a on average."""
    following = np.eye(10)[np.minimum(np.arange(10) + 1, 9)]
    return {
        "transitions": np.repeat(following[:, None], 5, axis=1).tolist(),
        "rewards_mean": np.tile(reward * np.arange(5.0), (10, 1)).tolist(),
    }


def test_a_sure_chain_is_walked_link_by_link():
    record = roll(TabularMDP(1), keys(1), [chain(0.0)], np.zeros((10, 1), np.int64))
    # Start 0, then 1, 2, …, 9 after nine steps, and the last state holds.
    assert record["observations"][:, 0].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_rewards_are_normal_around_their_mean():
    env = TabularMDP(500)
    record = roll(env, keys(500), [chain(100.0)] * 500, np.full((10, 500), 3))
    # 5,000 draws of N(300, 1): four standard errors of the mean (1/√5000) and of the variance (√(2/5000)).
    assert record["rewards"].mean() == pytest.approx(300.0, abs=4 * 0.0142)
    assert record["rewards"].var() == pytest.approx(1.0, abs=4 * 0.02)


def test_tasks_have_the_published_distribution():
    tasks = TabularMDP(1).sample_tasks(100, "train", np.random.default_rng(4))
    transitions = np.array([task["transitions"] for task in tasks])
    means = np.array([task["rewards_mean"] for task in tasks])
    np.testing.assert_allclose(transitions.sum(axis=-1), 1.0, atol=1e-12)
    # One entry of Dirichlet(1, …, 1) over 10 is Beta(1, 9): mean 1/10, variance 9 / (10² · 11) = 0.00818.
    assert transitions.var() == pytest.approx(9 / 1100, rel=0.05)
    # 5,000 draws of N(1, 1).
    assert means.mean() == pytest.approx(1.0, abs=4 * 0.0142)
    assert means.var() == pytest.approx(1.0, abs=4 * 0.02)


def test_rounding_never_leads_out_of_the_state_set():
    env = TabularMDP(1)
    env.set_tasks([chain(0.0)])
    env.reset(seed=keys(1))
    env.luck[:] = np.nextafter(1.0, 0.0)
    env.bounds *= 1.0 - 1e-12
    observations, *_ = env.step(np.array([0]))
    assert observations.sum() == 1.0


def test_wrong_tasks_are_refused():
    good = chain(1.0)
    with pytest.raises(ValueError, match="sum to 1"):
        TabularMDP(1).set_tasks([good | {"transitions": (0.9 * np.array(good["transitions"])).tolist()}])
    with pytest.raises(ValueError, match="sum to 1"):
        TabularMDP(1).set_tasks([good | {"transitions": [[1.0]]}])
    with pytest.raises(ValueError, match="rewards_mean"):
        TabularMDP(1).set_tasks([good | {"rewards_mean": [[0.0] * 5] * 9}])
