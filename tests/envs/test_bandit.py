import numpy as np
import pytest

from rl import streams
from rl.envs.bandit import BernoulliBandit
from rl.envs.contract import keys, roll
from tests.support.env_contract import EnvironmentContract


class TestContract5(EnvironmentContract):
    name = "Bandit-K5-v0"


class TestContract50(EnvironmentContract):
    name = "Bandit-K50-v0"


def test_it_equals_the_plain_twin():
    env = BernoulliBandit(4, num_arms=5)
    rng = np.random.default_rng(0)
    tasks = env.sample_tasks(4, "train", rng)
    actions = rng.integers(5, size=(100, 4))
    record = roll(env, keys(4), tasks, actions)
    for i, key in enumerate(keys(4)):
        stream = streams.generator(key)
        for t in range(100):
            assert record["rewards"][t, i] == float(stream.random() < tasks[i]["mean"][actions[t, i]])
    assert not record["observations"].any()
    assert not record["terminated"].any()
    np.testing.assert_array_equal(record["truncated"].all(axis=1), np.arange(1, 101) == 100)


def test_sure_arms_pay_always_or_never():
    env = BernoulliBandit(2, num_arms=3)
    tasks = [{"mean": [0.0, 1.0, 0.5]}] * 2
    record = roll(env, keys(2), tasks, np.tile([0, 1], (100, 1)))
    assert record["rewards"].sum(axis=0).tolist() == [0.0, 100.0]


def test_an_arm_pays_as_often_as_its_mean_says():
    env = BernoulliBandit(200, num_arms=2)
    record = roll(env, keys(200), [{"mean": [0.3, 0.9]}] * 200, np.zeros((100, 200), np.int64))
    # 20,000 pulls: standard error √(0.3 · 0.7 / 20000) = 0.0032; four of them.
    assert record["rewards"].mean() == pytest.approx(0.3, abs=4 * 0.0032)


@pytest.mark.parametrize("mean", [[0.5], [0.5, 1.5], [0.5, float("nan")]])
def test_a_wrong_task_is_refused(mean):
    with pytest.raises(ValueError, match="2 probabilities"):
        BernoulliBandit(1, num_arms=2).set_tasks([{"mean": mean}])
