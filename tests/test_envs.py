"""The registry, and environments of the user's own."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rl.envs
from rl.envs.adapter import AdaptedEnv
from rl.envs.navigation import Navigation
from rl.errors import UserError
from tests.broken_env import leaving
from tests.env_contract import EnvironmentContract, keys, roll
from tests.user_environments import Impatient

HERE = "tests.user_environments"
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
        with pytest.raises(UserError, match="unknown environment 'HalfCat-v1'; known: 2DNavigation-v0, CTgraph"):
            call("HalfCat-v1")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(rl.envs._BUILT_IN, "Broken-v0", ("no_such_engine.envs:Broken", {}))
    with pytest.raises(UserError, match="environment Broken-v0 needs the package no_such_engine"):
        rl.envs.options("Broken-v0")
    monkeypatch.setitem(rl.envs._BUILT_IN, "Broken-v0", ("rl.envs.no_such_module:Broken", {}))
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
    test_gymnasium_checks_pass = None
    test_gymnasium_makes_the_vector = None


class TestDiscrete(AdaptedContract):
    name = f"{HERE}:Walk-v0"


class TestBox(AdaptedContract):
    name = f"{HERE}:Reach-v0"


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


def test_a_vector_environment_is_used_as_it_is():
    env = rl.envs.make(f"{HERE}:OwnVector-v0", 4)
    assert type(env) is Navigation and env.num_envs == 4
    assert rl.envs.options(f"{HERE}:OwnVector-v0") == {}


def test_a_vector_environment_without_tasks_gives_way_to_the_scalar_one():
    assert isinstance(rl.envs.make(f"{HERE}:Both-v0", 2), AdaptedEnv)


@pytest.mark.parametrize(
    "name, message",
    [
        (f"{HERE}:Taskless-v0", r"add sample_tasks\(num_tasks, split, rng\), .* and set_tasks\(tasks\)"),
        (f"{HERE}:TasklessVector-v0", r"add sample_tasks\(num_tasks, split, rng\), .* and set_tasks\(tasks\)"),
        (f"{HERE}:Endless-v0", "no horizon: give max_episode_steps to gymnasium.register"),
        (f"{HERE}:Listed-v0", "observations must be a Box, got Dict"),
        (f"{HERE}:Switches-v0", "actions must be Discrete or a Box of floats, got Dict"),
        (f"{HERE}:Doubles-v0", "needs one-dimensional float32 observations, got Box"),
        (f"{HERE}:Autoreset-v0", "autoreset_mode"),
        (f"{HERE}:Absent-v0", f"importing {HERE} registers no gymnasium environment Absent-v0"),
        (f"{HERE}:not an id", "registers no gymnasium environment not an id"),
        ("tests.no_such_module:Walk-v0", "there is no module tests.no_such_module"),
        ("no_such_package.module:Walk-v0", "there is no module no_such_package"),
        (":Walk-v0", "not of the form package.module:Id"),
        ("tests.user_environments:", "not of the form package.module:Id"),
        ("..tests:Walk-v0", "not of the form package.module:Id"),
    ],
)
def test_what_is_missing_is_named(name, message):
    with pytest.raises(UserError, match=message) as caught:
        rl.envs.options(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Careless-v0", "Short-v0", "ShortVector-v0"])
def test_tasks_that_cannot_travel_are_refused(name):
    env = rl.envs.make(f"{HERE}:{name}", 1)
    with pytest.raises(UserError, match="sample_tasks must return a list of 3 dicts that JSON can hold"):
        rl.envs.sample_tasks(f"{HERE}:{name}", env, 3, "train", np.random.default_rng(0))


@pytest.mark.parametrize("where", ["import", "constructor", "sample_tasks"])
def test_code_that_ends_the_program_is_an_error_that_names_its_place(tmp_path, monkeypatch, where):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    name = leaving(tmp_path, where)
    with pytest.raises(UserError, match=rf"{name}: it calls sys\.exit\(0\) in .*{where}\.py, line 5") as caught:
        rl.envs.options(name)
        rl.envs.sample_tasks(name, rl.envs.make(name, 1), 3, "train", np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_modules_of_the_working_folder_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text("import tests.user_environments\n")
    assert rl.envs.make("module_of_mine:Walk-v0", 1).horizon == 20


def test_the_users_own_import_errors_are_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_in_need.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        rl.envs.options("module_in_need:Walk-v0")
