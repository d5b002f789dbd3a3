import math

import numpy as np
import pytest

from rl.envs.contract import keys, roll
from rl.envs.navigation.environment import Navigation
from tests.support.env_contract import EnvironmentContract


class TestContract(EnvironmentContract):
    name = "2DNavigation-v0"


def plain_episode(goal, actions):
    """The definition, one episode and one coordinate at a time."""
    x, y = np.float32(0), np.float32(0)
    rewards, positions = [], []
    for t, (dx, dy) in enumerate(actions):
        x = x + np.float32(min(max(dx, np.float32(-0.1)), np.float32(0.1)))
        y = y + np.float32(min(max(dy, np.float32(-0.1)), np.float32(0.1)))
        gap_x, gap_y = float(x) - goal[0], float(y) - goal[1]
        positions.append((x, y))
        rewards.append(-math.sqrt(gap_x * gap_x + gap_y * gap_y))
        if abs(gap_x) < 0.01 and abs(gap_y) < 0.01:
            return positions, rewards, True
        if t == 99:
            break
    return positions, rewards, False


def test_it_equals_the_plain_twin():
    env = Navigation(60)
    rng = np.random.default_rng(0)
    tasks = env.sample_tasks(60, "train", rng)
    goals = np.array([task["goal"] for task in tasks])
    # Half the episodes head for the goal with noise, so that some of them arrive.
    noise = rng.normal(0, 0.15, (100, 60, 2)).astype(np.float32)
    env.set_tasks(tasks)
    positions, _ = env.reset(seed=keys(60))
    actions, observed, rewards, terminated = [], [], [], []
    for t in range(100):
        action = np.where(np.arange(60)[:, None] < 30, (goals - positions + 0.1 * noise[t]), noise[t]).astype(
            np.float32
        )
        actions.append(action)
        positions, reward, end, truncated, _ = env.step(action)
        observed.append(positions)
        rewards.append(reward)
        terminated.append(end)
    arrivals = 0
    for i in range(60):
        twin_positions, twin_rewards, arrived = plain_episode(tasks[i]["goal"], [a[i] for a in actions])
        length = len(twin_rewards)
        np.testing.assert_array_equal([p[i] for p in observed[:length]], twin_positions)
        np.testing.assert_array_equal([r[i] for r in rewards[:length]], twin_rewards)
        assert terminated[length - 1][i] == arrived and truncated[i] == (not arrived)
        arrivals += arrived
    assert 20 <= arrivals < 60


def test_known_answers():
    env = Navigation(2)
    tasks = [{"goal": [0.1, 0.0]}, {"goal": [-0.3, 0.4]}]
    actions = np.array([[[0.0, 0.05], [5.0, -0.1]], [[0.0, 0.0], [0.0, 0.0]], [[0.1, -0.05], [0.0, 0.0]]], np.float32)
    record = roll(env, keys(2), tasks, actions)
    # Episode 1: the move (5, −0.1) is clipped to (0.1, −0.1); the gap (0.4, −0.5) is √(0.16 + 0.25) = √0.41 long.
    assert record["rewards"][0, 1] == pytest.approx(-math.sqrt(0.41), abs=1e-7)
    # Episode 0: from (0, 0.05), √(0.01 + 0.0025); then (0.1, 0), which is the goal.
    assert record["rewards"][:, 0] == pytest.approx([-math.sqrt(0.0125), -math.sqrt(0.0125), 0.0], abs=1e-7)
    np.testing.assert_array_equal(record["terminated"], [[False, False], [False, False], [True, False]])


def test_both_gaps_must_be_small_for_the_end():
    env = Navigation(3)
    tasks = [{"goal": [0.009, 0.009]}, {"goal": [0.009, 0.011]}, {"goal": [0.011, 0.0]}]
    record = roll(env, keys(3), tasks, np.zeros((1, 3, 2), np.float32))
    np.testing.assert_array_equal(record["terminated"][0], [True, False, False])


def test_goals_fill_the_square():
    goals = np.array([task["goal"] for task in Navigation(1).sample_tasks(4000, "test", np.random.default_rng(3))])
    assert goals.min() >= -0.5 and goals.max() <= 0.5
    # Uniform on ±0.5: mean 0, variance 1/12; four standard errors at 4,000 draws (of a variance: √(1/180)/√4000 each).
    np.testing.assert_allclose(goals.mean(axis=0), 0.0, atol=4 * math.sqrt(1 / 12 / 4000))
    np.testing.assert_allclose(goals.var(axis=0), 1 / 12, atol=4 * math.sqrt(1 / 180 / 4000))


def test_numbers_of_ended_episodes_do_not_matter():
    env = Navigation(2)
    env.set_tasks([{"goal": [0.0, 0.0]}, {"goal": [0.5, 0.5]}])
    env.reset(seed=keys(2))
    env.step(np.zeros((2, 2), np.float32))
    observations, rewards, terminated, _, _ = env.step(np.array([[np.nan, np.inf], [0.1, 0.1]], np.float32))
    np.testing.assert_array_equal(observations[0], [0.0, 0.0])
    assert rewards[0] == 0.0 and terminated[0] and not terminated[1]


@pytest.mark.parametrize("goal", [[0.1], [0.1, float("nan")]])
def test_a_wrong_goal_is_refused(goal):
    with pytest.raises(ValueError, match="a goal is two finite numbers"):
        Navigation(1).set_tasks([{"goal": goal}])
