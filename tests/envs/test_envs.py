"""The registry, and environments of the user's own."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

import rl.envs
from rl.envs.adapter import AdaptedEnv, _flat_actions
from rl.envs.contract import keys, roll
from rl.envs.navigation.environment import Navigation
from rl.errors import EpisodeError, UserError
from rl.policies import Architecture, make_policy
from rl.sampling.rollout import AdaptationPlan, StreamName, meta_rollout
from tests.support.env_contract import EnvironmentContract
from tests.support.helpers import random_params
from tests.support.user_environments import Impatient, Seek

HERE = "tests.support.user_environments"
CTGRAPH_FILE = Path(rl.envs.__file__).parent / "ctgraph" / "ctgraph_d2.json"


def test_the_published_ids_are_known_and_registered():
    published = {
        "2DNavigation-v0",
        "CTgraphEnvGoalChange-v0",
        "Bandit-K5-v0",
        "Bandit-K10-v0",
        "Bandit-K50-v0",
        "TabularMDP-v0",
    }
    assert published <= set(rl.envs.known())
    assert set(rl.envs.known()) <= set(gymnasium.registry)


def test_importing_the_registry_imports_no_engine_and_no_torch():
    code = (
        "import sys, rl.envs; rl.envs.known();"
        "print([m for m in ('torch', 'mujoco', 'metaworld', 'skimage') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_an_unknown_environment_is_told_the_known_ones():
    for call in (rl.envs.options, lambda name: rl.envs.make(name, 1)):
        with pytest.raises(UserError, match="unknown environment 'Walker-v7'; known: 2DNavigation-v0, CTgraph"):
            call("Walker-v7")


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("2dnavigation-v0", "2DNavigation-v0"),
        ("2DNavigaton-v0", "2DNavigation-v0"),
        ("2DNavigation", "2DNavigation-v0"),
        ("halfcheetahdir-v0", "HalfCheetahDir-v1"),
        ("ML1push-v2", "ML1Push-v2"),
    ],
)
def test_a_mistyped_environment_is_told_the_one_that_was_meant(typed, meant):
    with pytest.raises(UserError) as caught:
        rl.envs.options(typed)
    assert str(caught.value).startswith(f"unknown environment {typed!r} (did you mean {meant}")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(rl.envs.REGISTRY, "Broken-v0", rl.envs.Row("no_such_engine.envs:Broken"))
    with pytest.raises(UserError, match="environment Broken-v0 needs the package no_such_engine"):
        rl.envs.options("Broken-v0")
    monkeypatch.setitem(rl.envs.REGISTRY, "Broken-v0", rl.envs.Row("rl.envs.no_such_module:Broken"))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        rl.envs.options("Broken-v0")


def test_configuration_files_are_wanted_or_not():
    assert rl.envs.options("2DNavigation-v0") == {}
    for name in ("2DNavigation-v0", "Bandit-K5-v0", f"{HERE}:Walk-v0"):
        with pytest.raises(UserError, match=f"environment {name} takes no configuration file, got some.json"):
            rl.envs.options(name, "some.json")
    with pytest.raises(UserError, match="CTgraphEnvGoalChange-v0 needs a configuration file: --env-config-path"):
        rl.envs.options("CTgraphEnvGoalChange-v0")
    with pytest.raises(UserError, match="needs a configuration file"):
        gymnasium.make("CTgraphEnvGoalChange-v0")


def test_gymnasium_takes_the_path_of_a_configuration():
    env = gymnasium.make("CTgraphEnvGoalChange-v0", config=str(CTGRAPH_FILE)).unwrapped
    assert env.vector_env.config == rl.envs.options("CTgraphEnvGoalChange-v0", CTGRAPH_FILE)["config"]


# --- the user's own ---


class AdaptedContract(EnvironmentContract):
    # The scalar face is the user's own, with seeds of its own, and gymnasium knows of no vector.
    test_the_scalar_face_is_the_vector_of_one = None
    test_gymnasium_makes_the_vector = None


class TestDiscrete(AdaptedContract):
    name = f"{HERE}:Walk-v0"


class TestBox(AdaptedContract):
    name = f"{HERE}:Reach-v0"


# Gymnasium's checker warns of Seek's bounds.
@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")
class TestWrapped(AdaptedContract):
    name = f"{HERE}:Scaled-v0"
    test_a_copy_goes_on_alike_or_is_refused = None  # its entry point is a lambda, which no pickle holds


def test_a_scalar_environment_is_stepped_as_it_stands():
    env = rl.envs.make(f"{HERE}:Impatient-v0", 3)
    assert isinstance(env, AdaptedEnv) and env.horizon == 20
    assert env.single_observation_space.shape == (2,) and env.single_action_space.n == 3
    rng = np.random.default_rng(2)
    tasks = [{"place": 4}, {"place": 12}, {"place": 59}]
    actions = rng.integers(3, size=(20, 3))
    record = roll(env, keys(3), tasks, actions)
    lengths = []
    for i in range(3):
        walk = Impatient()
        walk.set_tasks([tasks[i]])
        # The stream's first draw seeds the environment.
        seed = rl.streams.generator(keys(3)[i]).integers(2**31)
        observation, _ = walk.reset(seed=int(seed))
        for t in range(20):
            np.testing.assert_array_equal(record["observations"][t, i], observation.ravel())
            observation, reward, terminated, truncated, _ = walk.step(actions[t, i] + 1)
            assert record["rewards"][t, i] == reward
            assert (record["terminated"][t, i], record["truncated"][t, i]) == (terminated, truncated)
            if terminated or truncated:
                break
        lengths.append(t + 1)
    # One arrives at once, one on the way; the last gives up after 18 steps, before the horizon of 20.
    assert lengths[0] < lengths[1] < lengths[2] == 18


class TestMixed(AdaptedContract):
    name = f"{HERE}:Rooms-v0"


def test_observations_of_every_kind_are_flattened_and_images_scaled():
    env = rl.envs.make(f"{HERE}:Rooms-v0", 1)
    env.set_tasks([{"room": 1}])
    env.reset(seed=[1])
    observations, *_ = env.step(np.array([[1, 2]]))
    room = env.envs[0].unwrapped.room
    # In the order of the names: camera / 255, doors, keys one-hot, place, room one-hot.
    expected = [51 * room / 255, 1, 1, 0, 0, 1, 0, 1, 7, *(np.arange(1, 4) == room)]
    np.testing.assert_allclose(observations[0], np.float32(expected), rtol=1e-7)
    assert env.single_observation_space.high.tolist() == [1] * 8 + [9] + [1] * 3
    assert env.single_action_space == MultiDiscrete([2, 3])
    env.envs[0].unwrapped._observation = lambda: {"room": 1}
    with pytest.raises(EpisodeError) as caught:
        env.step(np.array([[1, 2]]))
    assert "expected one of Dict" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "space, expected",
    [
        (MultiBinary((1, 2)), MultiDiscrete([2, 2])),
        (MultiDiscrete([[2, 3], [4, 5]]), MultiDiscrete([2, 3, 4, 5])),
        (Discrete(4, start=-1), Discrete(4)),
    ],
)
def test_actions_are_counted_from_0(space, expected):
    env = rl.envs.make(f"{HERE}:Walk-v0", 1)
    assert _flat_actions("", space) == expected
    env.inner_action_space = space
    highest = env._inner_action(getattr(expected, "nvec", getattr(expected, "n", None)) - 1)
    assert space.contains(highest)


def test_an_environment_gets_its_configuration_file_by_keyword(tmp_path):
    (tmp_path / "rooms.json").write_text('{"reward": 7}')
    options = rl.envs.options(f"{HERE}:Rooms-v0", tmp_path / "rooms.json")
    env = rl.envs.make(f"{HERE}:Rooms-v0", 2, **options)
    record = roll(env, keys(2), [{"room": 1}] * 2, np.zeros((3, 2, 2), int))
    assert (record["rewards"] == 7).all()
    with pytest.raises(UserError, match=r"Walk-v0 takes no configuration file, .* no argument env_config_path"):
        rl.envs.options(f"{HERE}:Walk-v0", tmp_path / "rooms.json")


def test_a_wrapper_of_the_users_own_is_kept():
    plain, scaled = (rl.envs.make(f"{HERE}:{name}-v0", 2) for name in ("Seek", "Scaled"))
    tasks = scaled.sample_tasks(2, "train", np.random.default_rng(0))
    actions = np.full((20, 2, 1), 0.2, np.float32)
    record, expected = (roll(env, keys(2), tasks, actions) for env in (scaled, plain))
    np.testing.assert_array_equal(record["rewards"], 2 * expected["rewards"])
    np.testing.assert_array_equal(record["observations"], expected["observations"])
    assert record["truncated"].sum(axis=0).tolist() == [1, 1] and record["truncated"][-1].all()


def test_actions_arrive_within_the_bounds_that_the_environment_declares():
    """Seek allows −0.5 to 0.25 and asserts it; gymnasium's own wrapper does the same."""
    env = rl.envs.make(f"{HERE}:Seek-v0", 3)
    clipped = gymnasium.wrappers.ClipAction(Seek())
    tasks = env.sample_tasks(3, "train", np.random.default_rng(0))
    actions = np.array([[9.0], [-9.0], [0.125]], np.float32)
    record = roll(env, keys(3), tasks, actions[None])
    assert record["observations"][1].ravel().tolist() == [0.25, -0.5, 0.125]
    clipped.unwrapped.set_tasks(tasks[:1])
    clipped.reset()
    assert clipped.step(actions[0])[0] == record["observations"][1, 0]


def test_the_learner_sees_the_actions_that_the_policy_drew():
    env = rl.envs.make(f"{HERE}:Seek-v0", 4)
    policy = make_policy(Architecture(1, 1, False, 2, (6,)))
    params = random_params(policy, dtype=torch.float32)
    sampling = AdaptationPlan(num_episodes=2, learning_rates=(0.1,), gamma=0.95, gae_lambda=1.0)
    tasks = env.sample_tasks(2, "train", np.random.default_rng(0))
    before, after = meta_rollout(env, policy, params, tasks, sampling, StreamName(1, 0, 0, 0)).episodes
    assert np.abs(before.actions).max() > 0.5 and np.abs(after.actions).max() > 0.5
    moves = np.diff(before.observations, axis=1)
    np.testing.assert_allclose(moves, np.clip(before.actions, -0.5, 0.25)[:, :-1], atol=1e-6)


def test_success_is_carried_where_the_environment_tells():
    env = rl.envs.make(f"{HERE}:Seek-v0", 2)
    record = roll(env, keys(2), [{"place": 0.5}, {"place": 9.0}], np.full((20, 2, 1), 0.25, np.float32))
    # At 0.25, 0.5 and 0.75 the place is nearer than 0.3.
    assert record["success"].dtype == bool
    assert record["success"][:, 0].tolist() == [True] * 3 + [False] * 17 and not record["success"][:, 1].any()
    assert "success" not in roll(rl.envs.make(f"{HERE}:Walk-v0", 1), keys(1), [{"place": 9}], np.zeros((2, 1), int))


@pytest.mark.parametrize(
    "what, value, complaint",
    [
        ("observation", [[0.0]], "observation: expected float32 of shape (1,), got float64 of shape (1, 1)"),
        ("observation", 0.5, "observation: expected float32 of shape (1,), got float64 of shape ()"),
        ("observation", ["0.5"], "observation: expected float32 of shape (1,), got list"),
        ("observation", None, "observation: expected float32 of shape (1,), got NoneType"),
        ("observation", {"x": 1}, "observation: expected float32 of shape (1,), got dict"),
        ("first observation", [0.0, 0.0], "observation: expected float32 of shape (1,), got float64 of shape (2,)"),
        ("reward", [1.0], "reward: expected float64 of shape (), got float64 of shape (1,)"),
        ("reward", "1.0", "reward: expected float64 of shape (), got str"),
        ("reward", None, "reward: expected float64 of shape (), got NoneType"),
        ("success", [True], "info['success']: expected float64 of shape (), got bool of shape (1,)"),
        ("success", 0.5, "info['success']: expected True or False, got 0.5"),
        ("observation", [2e40], "observation: expected numbers within ±3.4e+38, got 2e+40"),
        ("reward", -1e308, "reward: expected numbers within ±1.0e+300, got -1e+308"),
    ],
)
def test_what_is_not_as_declared_is_refused(what, value, complaint):
    env = rl.envs.make(f"{HERE}:Untrue-v0", 3)
    # The last of three episodes gives it.
    with pytest.raises(EpisodeError) as caught:
        roll(env, keys(3), [{}, {}, {"gives": [what, value]}], np.zeros((1, 3, 1), np.float32))
    assert caught.value.index == 2 and isinstance(caught.value.__cause__, UserError)
    assert str(caught.value.__cause__) == complaint


@pytest.mark.parametrize(
    "what, value", [("observation", [1]), ("observation", np.ones(1)), ("reward", 1), ("reward", np.float32(1)),
                    ("reward", True), ("success", 1.0), ("success", np.True_)]
)  # fmt: skip
def test_numbers_of_the_same_kind_will_do(what, value):
    env = rl.envs.make(f"{HERE}:Untrue-v0", 1)
    record = roll(env, keys(1), [{"gives": [what, value]}], np.zeros((1, 1, 1), np.float32))
    assert {"observation": record["observations"], "reward": record["rewards"], "success": record["success"]}[what][-1]


def test_an_integer_is_no_place_for_a_float():
    """Walk declares int16."""
    env = rl.envs.make(f"{HERE}:Walk-v0", 1)
    env.envs[0].unwrapped._observation = lambda: np.full((2, 1), 0.5)
    with pytest.raises(EpisodeError) as caught:
        env.reset(seed=[1])
    assert str(caught.value.__cause__) == "observation: expected int16 of shape (2, 1), got float64 of shape (2, 1)"


def test_a_vector_environment_is_used_as_it_is():
    env = rl.envs.make(f"{HERE}:OwnVector-v0", 4)
    assert type(env) is Navigation and env.num_envs == 4
    assert rl.envs.options(f"{HERE}:OwnVector-v0") == {}


def test_a_vector_environment_may_be_registered_with_its_horizon():
    """Whether its class takes it or not."""
    assert rl.envs.make(f"{HERE}:OwnHorizon-v0", 2).horizon == 100
    assert rl.envs.make(f"{HERE}:Once-v0", 2).horizon == 12


def test_a_vector_environment_without_tasks_gives_way_to_the_scalar_one():
    assert isinstance(rl.envs.make(f"{HERE}:Both-v0", 2), AdaptedEnv)


@pytest.mark.parametrize(
    "name, message",
    [
        (f"{HERE}:Taskless-v0", r"add sample_tasks\(num_tasks, split, rng\), .* and set_tasks\(tasks\)"),
        (f"{HERE}:TasklessVector-v0", r"add sample_tasks\(num_tasks, split, rng\), .* and set_tasks\(tasks\)"),
        (f"{HERE}:Endless-v0", "no horizon: give max_episode_steps to gymnasium.register"),
        (f"{HERE}:Listed-v0", "FlattenObservation flattens, got Sequence"),
        (f"{HERE}:Switches-v0", "actions must be Discrete, MultiDiscrete, MultiBinary or a Box of floats, got Dict"),
        (f"{HERE}:Doubles-v0", "needs one-dimensional float32 observations, got Box"),
        (f"{HERE}:Autoreset-v0", "autoreset_mode"),
        (f"{HERE}:OtherHorizon-v0", "registered with max_episode_steps 20, but its horizon is 100"),
        (f"{HERE}:Absent-v0", f"importing {HERE} registers no gymnasium environment Absent-v0"),
        (f"{HERE}:not an id", "registers no gymnasium environment not an id"),
        ("tests.no_such_module:Walk-v0", "there is no module tests.no_such_module"),
        ("no_such_package.module:Walk-v0", "there is no module no_such_package"),
        (":Walk-v0", "not of the form package.module:Id"),
        ("tests.support.user_environments:", "not of the form package.module:Id"),
        ("..tests:Walk-v0", "not of the form package.module:Id"),
    ],
)
def test_what_is_missing_is_named(name, message):
    with pytest.raises(UserError, match=message) as caught:
        rl.envs.options(name)
    assert "\n" not in str(caught.value)


def test_the_users_own_import_errors_are_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_in_need.py").write_text("import no_such_dependency\n")
    with pytest.raises(UserError, match=r"No module named 'no_such_dependency' \(.*module_in_need\.py, line 1\)"):
        rl.envs.options("module_in_need:Walk-v0")
