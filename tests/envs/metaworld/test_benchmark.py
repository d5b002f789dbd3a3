import functools
import json
import pickle
import sys

import numpy as np
import pytest

from rl import streams
from rl.envs.contract import expect_same, keys, roll
from rl.envs.metaworld.benchmark import IDS, MetaWorldML
from rl.errors import UserError
from tests.support.env_contract import EnvironmentContract
from tests.support.metaworld_experts import expert_action

pytest.importorskip("metaworld")

import metaworld
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, ML10_V3, ML45_V3
from metaworld.policies import ENV_POLICY_MAP


@functools.cache
def read_options(name):
    return MetaWorldML.read_options(name, None, seed=3)


def make(num_envs, name):
    return MetaWorldML(num_envs, name, **read_options(name))


class TestContract(EnvironmentContract):
    name = "ML1Push-v2"

    def options(self):
        return read_options(self.name)


class TestContractOfTenClasses(TestContract):
    name = "ML10-v2"


# --- task sets ---


def of_benchmark(tasks):
    sets = {}
    for task in tasks:
        sets.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"].tolist())
    return sets


def test_ml1_has_the_tasks_of_meta_world():
    benchmark = metaworld.ML1("reach-v3", seed=7)
    sets = MetaWorldML.read_options("ML1Reach-v2", None, seed=7)["task_sets"]
    assert sets == {"train": of_benchmark(benchmark.train_tasks), "test": of_benchmark(benchmark.test_tasks)}
    assert all(pickle.loads(task.data)["partially_observable"] for task in benchmark.train_tasks)
    # From the seed, and disjoint.
    assert sets == MetaWorldML.read_options("ML1Reach-v2", None, seed=7)["task_sets"]
    assert sets != MetaWorldML.read_options("ML1Reach-v2", None, seed=9)["task_sets"]
    train, test = ({tuple(vector) for vector in sets[split]["reach-v3"]} for split in ("train", "test"))
    assert len(train) == len(test) == 50 and not train & test


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ML10", "ML45"])
def test_ml10_and_ml45_have_the_tasks_of_meta_world(name):
    benchmark = getattr(metaworld, name)(seed=3)
    sets = read_options(f"{name}-v2")["task_sets"]
    assert sets == {"train": of_benchmark(benchmark.train_tasks), "test": of_benchmark(benchmark.test_tasks)}


def test_classes_of_ml10_are_disjoint():
    sets = read_options("ML10-v2")["task_sets"]
    assert (len(sets["train"]), len(sets["test"])) == (10, 5) and not sets["train"].keys() & sets["test"].keys()
    env = make(1, "ML10-v2")
    drawn = {
        split: {task["env_name"] for task in env.sample_tasks(30, split, np.random.default_rng(0))}
        for split in ("train", "test")
    }
    assert drawn == {split: set(sets[split]) for split in ("train", "test")}


def fake_ml45():
    """ML45 with made-up parameters: class i has the vectors [i, 0.0] to [i, 49.0]."""
    return {
        split: {name: [[float(i), float(k)] for k in range(50)] for i, name in enumerate(ML45_V3[split])}
        for split in ("train", "test")
    }


def test_a_batch_has_all_classes_equally():
    env = MetaWorldML(1, "ML45-v2", fake_ml45())
    tasks = env.sample_tasks(90, "train", np.random.default_rng(0))
    # In turn: any 45 in a row are one of each, and no task comes twice.
    assert [task["env_name"] for task in tasks] == 2 * list(ML45_V3["train"])
    assert len({json.dumps(task) for task in tasks}) == 90
    evaluation = env.sample_tasks(20, "test", np.random.default_rng(0))
    assert [task["env_name"] for task in evaluation] == 4 * list(ML45_V3["test"])
    # 60 of a class that has 50: all of them once, ten of them twice.
    goals = [task["rand_vec"][1] for task in env.sample_tasks(300, "test", np.random.default_rng(0))[::5]]
    assert sorted(np.bincount(np.array(goals, int), minlength=50)) == [1] * 40 + [2] * 10


def test_ids():
    assert set(IDS.values()) == {*ALL_V3_ENVIRONMENTS, "ML10", "ML45"}
    assert len(IDS) == 52
    assert IDS["ML1Push-v2"] == "push-v3" and IDS["ML1ButtonPressTopdownWall-v2"] == "button-press-topdown-wall-v3"


# --- the vector environment ---


def test_classes_mix_and_do_not_disturb_each_other():
    """Ten classes side by side: each episode is, bit for bit, what it is alone."""
    env = make(10, "ML10-v2")
    tasks = env.sample_tasks(10, "train", np.random.default_rng(1))
    actions = np.random.default_rng(2).uniform(-1, 1, (12, 10, 4)).astype(np.float32)
    together = roll(env, keys(10), tasks, actions)
    lone = make(1, "ML10-v2")
    for i in reversed(range(10)):
        alone = roll(lone, keys(1, run=i), [tasks[i]], actions[:, i : i + 1])
        expect_same({field: values[:, i : i + 1] for field, values in together.items()}, alone, "alone")


def test_without_tasks_each_seed_draws_one():
    env = make(3, "ML10-v2")
    first, _ = env.reset(seed=[1, 2, 3])
    tasks = list(env.tasks)
    assert all(task["env_name"] in ML10_V3["train"] for task in tasks)
    env.reset(seed=[4, 5, 6])
    assert env.tasks != tasks
    again, _ = env.reset(seed=[1, 2, 3])
    assert env.tasks == tasks
    np.testing.assert_array_equal(first, again)
    other = make(3, "ML10-v2")
    other.reset(seed=[1, 2, 3])
    assert other.tasks == tasks


def test_the_goal_is_hidden():
    env = make(2, "ML1Push-v2")
    assert env.single_observation_space.shape == (39,)
    env.set_tasks(env.sample_tasks(2, "train", np.random.default_rng(0)))
    observations = [env.reset(seed=0)[0]]
    observations.append(env.step(np.full((2, 4), 0.5, np.float32))[0])
    assert all((observation[:, 36:] == 0).all() for observation in observations)
    # The second frame is the step before.
    np.testing.assert_array_equal(observations[1][:, 18:36], observations[0][:, :18])


def test_a_scene_can_be_drawn_without_disturbing_the_episode():
    watched, unwatched = make(2, "ML1Push-v2"), make(2, "ML1Push-v2")
    tasks = watched.sample_tasks(2, "train", np.random.default_rng(0))
    actions = np.random.default_rng(2).uniform(-1, 1, (6, 2, 4)).astype(np.float32)
    for env in (watched, unwatched):
        env.set_tasks(tasks)
        env.reset(seed=0)
    for action in actions:
        expected = unwatched.step(action)[0]
        observations = watched.step(action)[0]
        np.testing.assert_array_equal(observations, expected)
        for i in (1, 0):
            model, data = watched.scene(i)
            assert model.ntex > 0
            np.testing.assert_allclose(data.body("hand").xpos, observations[i, :3], rtol=0, atol=1e-7)


def play_expert(env_name, name, num_tasks, horizon):
    """Whether the scripted policy succeeds at any step, bool [num_tasks]."""
    env = MetaWorldML(num_tasks, name, **(read_options(name) | {"horizon": horizon}))
    env.set_tasks(env.sample_tasks(num_tasks, "test", np.random.default_rng(0)))
    observations, _ = env.reset(seed=[streams.key(1, episode=i) for i in range(num_tasks)])
    policies = [ENV_POLICY_MAP[env_name]() for _ in range(num_tasks)]
    # The vector's last two thirds are the goal, but for its height, which the policy does not use.
    goals = [task["rand_vec"][-3:] for task in env.tasks]
    succeeded = np.zeros(num_tasks, bool)
    for t in range(horizon):
        actions = [expert_action(*triple) for triple in zip(policies, observations, goals, strict=True)]
        observations, _, terminated, truncated, infos = env.step(np.stack(actions))
        succeeded |= infos["success"]
        assert not terminated.any() and (truncated == (t == horizon - 1)).all()
    return succeeded


def test_an_expert_succeeds_and_is_seen_to():
    assert play_expert("push-v3", "ML1Push-v2", 5, 120).all()


@pytest.mark.slow
def test_the_expert_succeeds_on_push_as_published():
    assert play_expert("push-v3", "ML1Push-v2", 50, 500).mean() > 0.95


# --- bad input ---


def draw(name, num_tasks, split):
    sets = fake_ml45() if name == "ML45-v2" else read_options(name)["task_sets"]
    return MetaWorldML(1, name, sets).sample_tasks(num_tasks, split, np.random.default_rng(0))


def step_to_nan():
    env = make(2, "ML1Push-v2")
    env.reset(seed=0)
    env.step(np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]], np.float32))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: MetaWorldML.read_options("ML1Push-v2", None, horizon=501), "horizon from 1 to 500 steps, got 501"),
        (lambda: MetaWorldML.read_options("ML1Push-v2", None, horizon=0), "horizon from 1 to 500 steps, got 0"),
        (lambda: MetaWorldML.read_options("ML1Psuh-v2", None), r"'ML1Psuh-v2'; known: ML1Assembly-v2, .*ML45-v2"),
        (lambda: MetaWorldML.read_options("ML1Push-v2", None, seed=2**32 - 1), "a seed from 0 to 4294967294, got"),
        (lambda: draw("ML1Push-v2", 1, "validation"), "no task set 'validation'; it has train, test"),
        (lambda: draw("ML45-v2", 44, "train"), r"44 tasks .* 45 classes of its train set.* 45, 90, 135"),
        (lambda: draw("ML45-v2", 7, "test"), r"7 tasks .* 5 classes of its test set.* 5, 10, 15"),
        (step_to_nan, "episode 1: expected a finite action"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(UserError, match=words):
        call()


@pytest.mark.parametrize(
    "task, words",
    [
        ({"env_name": "psuh-v3", "rand_vec": [0.0] * 6}, "unknown Meta-World class 'psuh-v3'"),
        ({"env_name": "push-v3", "rand_vec": [0.0] * 3}, "rand_vec of 6 finite numbers"),
    ],
)
def test_wrong_tasks_are_refused(task, words):
    with pytest.raises(ValueError, match=words):
        make(1, "ML1Push-v2").set_tasks([task])


def test_without_metaworld_one_line_says_how_to_install_it(monkeypatch):
    for module in ("rl.envs.metaworld.simulation", "rl.envs.metaworld.task_sets"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(UserError, match=r"package metaworld, .* pip install metaworld==3.1.1"):
        MetaWorldML.read_options("ML1Push-v2", None)
    with pytest.raises(UserError, match=r"pip install metaworld==3.1.1"):
        MetaWorldML(1, "ML1Push-v2")
    from rl.envs.navigation.environment import Navigation

    assert Navigation(1).reset(seed=0)[0].shape == (1, 2)
