"""Environments of a user's that fail: main.py says so in one line that names them, and writes nothing before."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from rl import envs, main
from rl.envs import check
from rl.errors import in_one_line
from tests.support import tiny_runs

HERE = "tests.test_users_code"
RAISED = ArithmeticError("two\nlines")


class Speechless(Exception):
    """Cannot say what is wrong."""

    def __str__(self):
        raise ValueError("no words")


class Sealed(dict):
    """A task that JSON can hold and no pipe."""

    def __reduce__(self):
        raise TypeError("sealed")


class Troubled(gymnasium.Env):
    """Fails where it is told to; walks at random otherwise.

    Args:
        where: the method that raises.
        error: what it raises.
        size: of observations and actions.
        gives: of the first observation, or of every reward.
    """

    def __init__(self, where="", error=RAISED, sizes=(2, 1), gives=None):
        self.where, self.error, self.gives = where, error, gives or {}
        self.observation_space = Box(-9.0, 9.0, (sizes[0],), np.float32)
        self.action_space = Box(-1.0, 1.0, (sizes[1],), np.float32)
        self.fail("__init__")

    def fail(self, where):
        if where == self.where:
            raise self.error

    def sample_tasks(self, num_tasks, split, rng):
        self.fail("sample_tasks")
        kind = Sealed if self.where == "pickle" else dict
        return [kind(speed=speed) for speed in rng.uniform(-1, 1, num_tasks).tolist()]

    def set_tasks(self, tasks):
        self.fail("set_tasks")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(self.observation_space.shape, self.gives.get("observation", 0.0), np.float32), {}

    def step(self, action):
        self.fail("step")
        observation = self.np_random.normal(size=self.observation_space.shape).astype(np.float32)
        return observation, self.gives.get("reward", float(action[0])), False, False, {}

    def close(self):
        self.fail("close")


def registered(name, horizon=5, **options):
    gymnasium.register(f"{name}-v0", entry_point=Troubled, max_episode_steps=horizon, kwargs=options)


TROUBLES = {
    **{where.strip("_").title().replace("_", ""): ({"where": where}, 5, "ArithmeticError: two lines (")
       for where in ("__init__", "close", "sample_tasks")},
    "Speechless": ({"where": "__init__", "error": Speechless()}, 5, "Speechless: no text, which ended in a ValueError"),
    "Leaves": ({"where": "close", "error": SystemExit(3)}, 5, "calls sys.exit(3) in "),
    "Pickle": ({"where": "pickle"}, 5, "sample_tasks must return a list of 2 dicts that JSON can hold: sealed"),
    "NoSteps": ({}, 0, "horizon 0; expected a whole number of at least 1"),
    "Backwards": ({}, -1, "horizon -1; expected"),
    "Halves": ({}, 2.5, "horizon 2.5; expected"),
    "Blind": ({"sizes": (0, 1)}, 5, "observations must have entries, got Box([], [], (0,), float32)"),
    "Still": ({"sizes": (2, 0)}, 5, "or a Box of floats, got Box([], [], (0,)"),
}  # fmt: skip
for trouble, (settings, steps, _) in TROUBLES.items():
    registered(trouble, steps, **settings)
registered("NanReset", gives={"observation": np.nan})
registered("Enormous", gives={"reward": 1e308})
registered("Mute", where="step", error=Speechless())


def trained(tmp_path, name, *more):
    folders = "--logdir", str(tmp_path / "logs"), "--savedir", str(tmp_path / "saves")
    return main.program([*tiny_runs.SMALL, "--neuromodulation", *folders, "--env-name", name, *more])


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_is_wrong_is_found_before_anything_is_written(tmp_path, capsys, trouble):
    name = f"{HERE}:{trouble}-v0"
    assert trained(tmp_path, name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("main.py: ") and name in line and TROUBLES[trouble][2] in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content, told", [
    ("1 / 0", "ZeroDivisionError: division by zero ("),
    ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency' ("),
    ("(", "SyntaxError: '(' was never closed"),
])  # fmt: skip
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, capsys, content, told):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    module = f"module_{len(content)}"
    (tmp_path / f"{module}.py").write_text(content)
    assert trained(tmp_path, f"{module}:Thing-v0") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"main.py: environment {module}:Thing-v0: {told}")


@pytest.mark.parametrize("name, told", [
    ("NanReset", "observation of the reset is not finite: task 0, episode 0 (tasks from 0, iteration 0)"),
    ("Enormous", "reward: expected numbers within ±1.0e+300, got 1e+308 (task 0, episode 0, step 0"),
    ("Mute", "Speechless: no text, which ended in a ValueError (task 0, episode 0, step 0, iteration 0)"),
])  # fmt: skip
def test_what_goes_wrong_in_an_episode_is_named_as_what_it_is(tmp_path, capsys, name, told):
    assert trained(tmp_path, f"{HERE}:{name}-v0") == 1
    error = capsys.readouterr().err
    assert f"main.py: {HERE}:{name}-v0: " in error and told in error


def test_the_check_of_an_environment_tells_what_has_no_words(capsys):
    assert check.main([f"{HERE}:Speechless-v0"]) == 2
    assert "Speechless: no text" in capsys.readouterr().err
    assert in_one_line(KeyError("leaf")) == "KeyError: 'leaf' (no place known)"


def test_a_hook_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(Troubled, "task_label", lambda task: task["leaf"], raising=False)
    monkeypatch.setattr(envs.adapter, "entry_point", lambda name: Troubled)
    with pytest.raises(envs.UserError, match=f"environment {HERE}:Mute-v0: KeyError: 'leaf'"):
        envs.task_label(f"{HERE}:Mute-v0", {})
