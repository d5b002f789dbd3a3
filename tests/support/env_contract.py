"""What every environment must keep. A test module inherits it: `class TestContract(EnvironmentContract): name = …`."""

import json
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

import rl.envs
from rl import streams


def keys(count, run=0):
    """Distinct 128-bit keys of random streams."""
    return [streams.key(2**31 + run, iteration=7, episode=i) for i in range(count)]


def roll(env, key_list, tasks, actions):
    """Play episodes to the end of `actions` [T, N, ...].

    Returns:
        A dict of arrays: observations [T + 1, N, O]; rewards, terminated, truncated and every info [T, N].
    """
    env.set_tasks(tasks)
    observations, _ = env.reset(seed=key_list)
    record = {"observations": [observations], "rewards": [], "terminated": [], "truncated": []}
    for action in actions:
        observations, rewards, terminated, truncated, infos = env.step(action)
        step = {"observations": observations, "rewards": rewards, "terminated": terminated, "truncated": truncated}
        for field, values in (step | infos).items():
            record.setdefault(field, []).append(values)
    return {field: np.stack(values) for field, values in record.items()}


def assert_same(left, right):
    """Two records agree bit for bit."""
    assert left.keys() == right.keys()
    for field in left:
        assert left[field].dtype == right[field].dtype, field
        np.testing.assert_array_equal(left[field], right[field], err_msg=field)


class EnvironmentContract:
    """Inherit, set `name` (and `config_path` where one is needed), override `draw_actions` where chance gets nowhere.

    Attributes:
        name: the id.
        config_path: the configuration file, or None.
        num_steps: how many steps the bitwise comparisons take.
    """

    name = None
    config_path = None
    num_steps = 30

    def options(self):
        return rl.envs.options(self.name, self.config_path)

    def make(self, num_envs):
        return rl.envs.make(self.name, num_envs, **self.options())

    def draw_actions(self, env, num_steps, rng):
        """Random actions [T, N, ...] that keep episodes going; Box actions reach beyond their bounds."""
        space = env.single_action_space
        if isinstance(space, Discrete):
            return rng.integers(space.n, size=(num_steps, env.num_envs))
        center, half = (space.high + space.low) / 2, (space.high - space.low) / 2
        return center + 1.5 * half * rng.uniform(-1, 1, (num_steps, *env.action_space.shape)).astype(np.float32)

    def setup_episodes(self, num_envs, num_steps=None):
        """An environment with tasks and actions for its episodes."""
        env = self.make(num_envs)
        rng = np.random.default_rng(5)
        tasks = env.sample_tasks(num_envs, "train", rng)
        return env, tasks, self.draw_actions(env, num_steps or self.num_steps, rng)

    def test_spaces_and_types(self):
        env, tasks, actions = self.setup_episodes(5)
        space = env.single_observation_space
        assert isinstance(space, Box) and space.dtype == np.float32 and len(space.shape) == 1
        assert isinstance(env.single_action_space, Box | Discrete)
        assert isinstance(env.horizon, int) and env.horizon >= 1
        record = roll(env, keys(5), tasks, actions)
        assert record["observations"].dtype == np.float32
        assert all(observation in env.observation_space for observation in record["observations"])
        assert record["rewards"].dtype == np.float64 and np.isfinite(record["rewards"]).all()
        assert record["terminated"].dtype == bool and record["truncated"].dtype == bool
        for field, values in record.items():
            assert values.shape[1] == 5, field

    def test_the_same_seeds_give_the_same_episodes(self):
        env, tasks, actions = self.setup_episodes(4)
        first = roll(env, keys(4), tasks, actions)
        # Another run between must leave no trace.
        roll(env, keys(4, run=1), tasks[::-1], actions[:3])
        assert_same(first, roll(env, keys(4), tasks, actions))
        assert_same(first, roll(self.make(4), keys(4), tasks, actions))

    def test_an_episode_does_not_depend_on_its_neighbours(self):
        env, tasks, actions = self.setup_episodes(7)
        together = roll(env, keys(7), tasks, actions)
        lone = self.make(1)
        for i, key in enumerate(keys(7)):
            alone = roll(lone, [key], [tasks[i]], actions[:, i : i + 1])
            assert_same({field: values[:, i : i + 1] for field, values in together.items()}, alone)

    def test_episodes_end_by_the_horizon_and_stay_ended(self):
        env, tasks, actions = self.setup_episodes(3, num_steps=self.make(1).horizon + 3)
        record = roll(env, keys(3), tasks, actions)
        terminated, truncated = record["terminated"], record["truncated"]
        assert not (terminated & truncated).any()
        assert not truncated[: env.horizon - 1].any()
        ended = terminated | truncated
        assert ended[env.horizon - 1].all()
        observations = record["observations"][1:]
        for i in range(3):
            end = int(ended[:, i].argmax())
            assert (terminated[end:, i] == terminated[end, i]).all() and (truncated[end:, i] == truncated[end, i]).all()
            assert (observations[end:, i] == observations[end, i]).all()
            assert (record["rewards"][end + 1 :, i] == 0.0).all()

    def test_an_ended_episode_can_be_restarted_alone(self):
        env, tasks, actions = self.setup_episodes(3)
        alone = roll(self.make(1), keys(1, run=9), [tasks[1]], actions[5:, 1:2])
        env.set_tasks(tasks)
        env.reset(seed=keys(3))
        undisturbed = roll(self.make(3), keys(3), tasks, actions)
        for action in actions[:5]:
            observations, *_ = env.step(action)
        restarted, _ = env.reset(seed=keys(1, run=9) * 3, options={"reset_mask": np.array([False, True, False])})
        np.testing.assert_array_equal(restarted[[0, 2]], observations[[0, 2]])
        np.testing.assert_array_equal(restarted[1], alone["observations"][0, 0])
        for t, action in enumerate(actions[5:]):
            observations, rewards, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(observations[1], alone["observations"][t + 1, 0])
            np.testing.assert_array_equal(observations[[0, 2]], undisturbed["observations"][t + 6][[0, 2]])
            np.testing.assert_array_equal(rewards[1], alone["rewards"][t, 0])
            np.testing.assert_array_equal(rewards[[0, 2]], undisturbed["rewards"][t + 5][[0, 2]])
            assert terminated[1] == alone["terminated"][t, 0] and truncated[1] == alone["truncated"][t, 0]

    def test_what_it_returns_belongs_to_the_caller(self):
        env, tasks, actions = self.setup_episodes(2)
        env.set_tasks(tasks)
        returned = [env.reset(seed=keys(2))[0]]
        copies = [returned[0].copy()]
        for action in actions[:6]:
            observations, rewards, terminated, truncated, infos = env.step(action)
            for array in (observations, rewards, terminated, truncated, *infos.values()):
                returned.append(array)
                copies.append(array.copy())
        for array, copy in zip(returned, copies, strict=True):
            np.testing.assert_array_equal(array, copy)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_tasks_are_json_and_a_function_of_the_generator(self, split):
        env = self.make(1)
        tasks = env.sample_tasks(3, split, np.random.default_rng(1))
        assert len(tasks) == 3 and all(isinstance(task, dict) for task in tasks)
        assert json.loads(json.dumps(tasks)) == tasks
        assert env.sample_tasks(3, split, np.random.default_rng(1)) == tasks
        assert self.make(1).sample_tasks(20, split, np.random.default_rng(1)) != env.sample_tasks(
            20, split, np.random.default_rng(2)
        )
        assert env.sample_tasks(0, split, np.random.default_rng(1)) == []

    def test_wrong_calls_are_refused(self):
        env, tasks, actions = self.setup_episodes(3)
        with pytest.raises(ValueError, match="expected 3 tasks"):
            env.set_tasks(tasks[:2])
        with pytest.raises(ValueError, match="expected 3 seeds"):
            env.reset(seed=keys(2))
        with pytest.raises(ValueError, match="mask of shape"):
            env.reset(seed=keys(3), options={"reset_mask": np.ones(2, bool)})
        env.reset(seed=keys(3))
        with pytest.raises(ValueError, match="expected actions of shape"):
            env.step(actions[0][:2])
        if isinstance(env.single_action_space, Discrete):
            for action in (-1, env.single_action_space.n):
                with pytest.raises(ValueError, match="actions go from 0"):
                    env.step(np.array([0, 0, action]))
        with pytest.raises(ValueError, match="num_envs must be at least 1"):
            self.make(0)

    def test_one_seed_stands_for_consecutive_ones(self):
        env, tasks, actions = self.setup_episodes(3)
        assert_same(roll(env, 40, tasks, actions), roll(self.make(3), [40, 41, 42], tasks, actions))

    def test_streams_go_on_where_no_seed_is_given(self):
        env, tasks, actions = self.setup_episodes(2)
        roll(env, keys(2), tasks, actions)
        second = roll(env, None, tasks, actions)
        other = self.make(2)
        roll(other, keys(2), tasks, actions)
        assert_same(second, roll(other, None, tasks, actions))

    def test_the_scalar_face_is_the_vector_of_one(self):
        env, tasks, actions = self.setup_episodes(1)
        vector = roll(env, [1234], tasks, actions)
        scalar = gymnasium.make(self.name, **self.options()).unwrapped
        scalar.set_tasks(tasks)
        observation, _ = scalar.reset(seed=1234)
        np.testing.assert_array_equal(observation, vector["observations"][0, 0])
        for t, action in enumerate(actions[:, 0]):
            observation, reward, terminated, truncated, info = scalar.step(action)
            np.testing.assert_array_equal(observation, vector["observations"][t + 1, 0])
            assert reward == vector["rewards"][t, 0]
            assert (terminated, truncated) == (vector["terminated"][t, 0], vector["truncated"][t, 0])
            assert all(info[field] == vector[field][t, 0] for field in info)
        scalar.close()

    def test_options_travel_to_workers(self):
        options = self.options()
        assert pickle.loads(pickle.dumps(options)) == options

    def test_gymnasium_checks_pass(self):
        env = gymnasium.make(self.name, **self.options())
        check_env(env.unwrapped, skip_render_check=True)
        # Gymnasium's wrappers check a first step, too.
        env.reset(seed=1)
        env.step(env.action_space.sample())
        env.close()

    def test_gymnasium_makes_the_vector(self):
        env = gymnasium.make_vec(self.name, 3, **self.options())
        assert type(env) is type(self.make(3)) and env.num_envs == 3
        # Nobody has set tasks: each episode draws its own.
        observations, _ = env.reset(seed=3)
        assert observations in env.observation_space and len(env.tasks) == 3
        env.step(env.action_space.sample())
        env.close()
