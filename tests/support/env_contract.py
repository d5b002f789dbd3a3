"""The contract (`rl/envs/contract.py`) as tests, and what environments of this project keep besides.

A test module inherits it: `class TestContract(EnvironmentContract): name = …`.
"""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete

import rl.envs
from rl.envs import contract
from rl.envs.contract import keys, roll


class EnvironmentContract:
    """Inherit, set `name` (and `config_path` where one is needed), override `draw_actions` where chance gets nowhere.

    Attributes:
        name: the id.
        config_path: the configuration file, or None.
        draw_actions: as `contract.draw_actions`.
    """

    name = None
    config_path = None
    draw_actions = staticmethod(contract.draw_actions)

    def options(self):
        return rl.envs.options(self.name, self.config_path)

    def subject(self):
        return contract.Subject(self.name, self.options(), self.draw_actions)

    @pytest.mark.parametrize("point", contract.POINTS, ids=lambda point: point.__name__)
    def test_the_contract(self, point):
        point(self.subject())

    def test_wrong_calls_are_refused(self):
        env, tasks, actions = self.subject().episodes(3)
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
            self.subject().make(0)

    def test_the_scalar_face_is_the_vector_of_one(self):
        env, tasks, actions = self.subject().episodes(1)
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

    def test_gymnasium_makes_the_vector(self):
        env = gymnasium.make_vec(self.name, 3, **self.options())
        assert type(env) is type(self.subject().make(3)) and env.num_envs == 3
        # Nobody has set tasks: each episode draws its own.
        observations, _ = env.reset(seed=3)
        assert observations in env.observation_space and len(env.tasks) == 3
        env.step(env.action_space.sample())
        env.close()

    def test_a_copy_goes_on_alike_or_is_refused(self):
        env, tasks, actions = self.subject().episodes(2)
        roll(env, keys(2), tasks, actions[:3])
        for copied in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
            if not env.copyable:
                with pytest.raises(TypeError, match=r"neither copied nor pickled; make another"):
                    copied(env)
                continue
            other = copied(env)
            expected, found = (copy.deepcopy(one).step(actions[3])[0] for one in (env, other))
            np.testing.assert_array_equal(found, expected)
            other.reset(seed=keys(2, run=3))
            np.testing.assert_array_equal(copy.deepcopy(env).step(actions[3])[0], expected)

    def test_a_seed_decides_all_of_a_fresh_environment(self):
        first, second = (rl.envs.make(self.name, 2, **self.options()) for _ in range(2))
        observations, _ = first.reset(seed=3)
        tasks = first.tasks
        first.reset(seed=8)
        for env in (first, second):
            np.testing.assert_array_equal(env.reset(seed=3)[0], observations)
            assert env.tasks == tasks
