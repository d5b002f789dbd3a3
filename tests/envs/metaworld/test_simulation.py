"""Fast stepping against Meta-World's own environments: the package is the plain twin."""

import functools
import importlib
import pickle

import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.types import Task
from metaworld.utils import reward_utils

from rl.envs.metaworld.simulation import Simulation, displacements
from tests.support.metaworld_experts import expert_action


def classes(*quick):
    """Parameters: every class of Meta-World, all but the named ones in the slow suite."""
    marks = pytest.mark.slow
    return [name if name in quick else pytest.param(name, marks=marks) for name in ALL_V3_ENVIRONMENTS]


@functools.lru_cache(maxsize=2)
def stock(env_name):
    """Meta-World's own environment, and the parameters of three of its tasks."""
    env = ALL_V3_ENVIRONMENTS[env_name]()
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env.seed(5)
    vectors = []
    for _ in range(3):
        env.reset()
        vectors.append(tuple(env._last_rand_vec.tolist()))
    return env, vectors


def stock_episode(env_name, rand_vec):
    """Meta-World's own environment at the start of a task, and the first observation."""
    env, _ = stock(env_name)
    parameters = {"env_cls": type(env), "rand_vec": np.array(rand_vec), "partially_observable": True}
    env.set_task(Task(env_name, pickle.dumps(parameters)))
    return env, env.reset()[0]


# Between them: rotations, contacts, two objects, an attribute set in the first step, static functions, joints.
@pytest.mark.parametrize("env_name", classes("push-v3", "stick-pull-v3", "bin-picking-v3", "door-open-v3"))
def test_every_class_equals_stock(env_name):
    """A random and a scripted episode of 300 steps, each taking turns with an episode of another task."""
    rng = np.random.default_rng(11)
    _, (first, second, third) = stock(env_name)
    simulation = Simulation(env_name)
    for rand_vec, scripted in ((first, False), (second, True)):
        env, expected = stock_episode(env_name, rand_vec)
        policy = ENV_POLICY_MAP[env_name]()
        episode, other = simulation.begin(rand_vec), simulation.begin(third)
        np.testing.assert_allclose(episode.observation, expected, rtol=0, atol=1e-12)
        for _ in range(300):
            if scripted:
                action = expert_action(policy, expected, env._get_pos_goal())
            else:
                action = rng.uniform(-1.2, 1.2, 4).astype(np.float32)
            disturbance = rng.uniform(-1, 1, 4).astype(np.float32)
            other.step(disturbance, displacements(disturbance))
            expected, expected_reward, _, _, expected_info = env.step(action)
            observation, reward, _, _, info = episode.step(action, displacements(action))
            assert np.abs(observation - expected).max() <= 1e-12
            assert abs(reward - expected_reward) <= 1e-12
            assert info.keys() == expected_info.keys() and info["success"] == expected_info["success"]
            assert all(abs(float(info[key]) - float(expected_info[key])) <= 1e-12 for key in info)


@pytest.mark.parametrize("env_name", classes("door-open-v3"))
def test_a_start_does_not_depend_on_what_was_before(env_name):
    _, (first, second, _) = stock(env_name)
    used, fresh = Simulation(env_name), Simulation(env_name)
    action = np.array([0.3, 0.9, -0.7, 1.0], np.float32)
    episode = used.begin(first)
    for _ in range(40):
        episode.step(action, displacements(action))
    after_use, at_once = used.begin(second), fresh.begin(second)
    np.testing.assert_array_equal(after_use.state, at_once.state)
    for _ in range(5):
        ours, theirs = (e.step(action, displacements(action)) for e in (after_use, at_once))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1] and ours[4] == theirs[4]


@pytest.mark.parametrize("env_name", classes("door-open-v3"))
def test_the_lean_model_moves_like_the_complete_one(env_name):
    """A task changes `body_pos` and `site_pos`; what was left out of the model is in no other array of its dynamics."""

    def dynamics(model):
        names = [name for name in dir(model) if name.startswith(("body_", "jnt_", "dof_", "qpos", "actuator_", "eq_"))]
        addresses = ("geomnum", "geomadr", "bvhadr", "bvhnum", "adr_", "simple")
        arrays = {name: getattr(model, name) for name in names if not name.endswith(addresses)}
        touching = (model.geom_contype | model.geom_conaffinity) != 0
        for name in ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_margin", "geom_solref"):
            arrays[name] = getattr(model, name)[touching]
        return arrays

    _, (first, *_) = stock(env_name)
    simulation = Simulation(env_name)
    simulation.begin(first)
    ours, theirs = dynamics(simulation.model), dynamics(ALL_V3_ENVIRONMENTS[env_name]().model)
    changed = {name for name in theirs if not np.array_equal(ours[name], theirs[name])}
    assert len(theirs) > 60 and changed <= {"body_pos", "site_pos"}


def test_the_package_stays_as_it_is():
    assert importlib.import_module("metaworld.envs.sawyer_push_v3").reward_utils is reward_utils
    assert importlib.import_module("metaworld.envs.sawyer_push_v3").np is np
    assert reward_utils.tolerance.__module__ == "metaworld.utils.reward_utils"
