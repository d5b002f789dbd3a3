"""Environments of a user's that fail: main.py says so in one line that names them, and writes nothing before."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from rl import envs, main
from rl.envs import check
from rl.errors import in_one_line
from rl.policies import Architecture, make_policy
from rl.sampling.jobs import Job, JobRunner, WorkerError, WorkerSpec
from rl.sampling.rollout import AdaptationPlan, StreamName, meta_rollout
from tests.support import tiny_runs
from tests.support.helpers import random_params

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


class Sloppy(VectorEnv):
    """A vector environment that gives what it is told to, in place of arrays as declared.

    Args:
        tasks: what every task has beside its goal.
        makes: of an observation, an end or an info: field -> how it is changed.
        copies: how many episodes it has for one that was asked for.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    horizon = 3

    def __init__(self, num_envs, tasks=None, makes=None, copies=1):
        self.num_envs, self.more, self.makes = num_envs * copies, tasks or {}, makes or {}
        self.single_observation_space, self.single_action_space = Box(-9, 9, (2,), np.float32), Box(-1, 1, (1,))

    def made(self, field, value):
        return self.makes[field](value) if field in self.makes else value

    def sample_tasks(self, num_tasks, split, rng):
        return [{"goal": float(goal), **self.more} for goal in rng.random(num_tasks)]

    def set_tasks(self, tasks):
        self.goals = np.array([task["goal"] for task in tasks])

    def reset(self, *, seed=None, options=None):
        self.steps, self.x = 0, np.zeros((self.num_envs, 2), np.float32)
        return self.made("observations", self.x.copy()), {}

    def step(self, actions):
        self.steps, self.x = self.steps + 1, self.x + actions
        if "actions" in self.makes:
            actions *= 0.0
        ended = self.made("terminated", np.full(self.num_envs, self.steps == self.horizon))
        infos = {
            "success": self.made("success", self.x[:, 0] > 0),
            "name": self.made("name", ["a"] * self.num_envs),
            "count": self.made("count", np.full(self.num_envs, 0 if self.steps == 1 else 0.5)),
        }
        return self.made("observations", self.x.copy()), -self.goals, ended, np.zeros(self.num_envs, bool), infos


class Planning(Sloppy):
    """Knows what is safe once an episode has begun."""

    def __init__(self, num_envs):
        super().__init__(num_envs)
        self.single_action_space = Discrete(2)

    def safe_actions(self):
        return np.full((len(self.x), 2), True)

    def step(self, actions):
        return super().step(actions[:, None])


def as_objects(values):
    """As gymnasium collects NumPy's truth values."""
    return np.array(values, object)


def sloppy(name, **options):
    gymnasium.register(f"{name}-v0", vector_entry_point=Sloppy, kwargs=options)


TASKS = {
    "Misspelt": "task {'gaol': 0.",
    "Classes": "the env_name of a task is ['a', 'b']; expected the name of its class, other than any and final",
    "Any": "the env_name of a task is 'any'",
    "Numbers": "and gives back as they are: {'goal': 0.",
    "Tuples": "dicts that JSON can hold, and gives back as they are",
    "Nan": "Out of range float values are not JSON compliant",
    "Twice": "made with num_envs 1, it has 2; expected the same",
}
sloppy("Classes", tasks={"env_name": ["a", "b"]})
sloppy("Any", tasks={"env_name": "any"})
sloppy("Numbers", tasks={1: 2})
sloppy("Tuples", tasks={"place": (1, 2)})
sloppy("Nan", tasks={"speed": float("nan")})
sloppy("Twice", copies=2)
gymnasium.register("Planning-v0", vector_entry_point=Planning)


class Misspelt(Sloppy):
    """Draws other tasks than it takes."""

    def sample_tasks(self, *arguments):
        return [{"gaol": task["goal"]} for task in super().sample_tasks(*arguments)]


gymnasium.register("Misspelt-v0", vector_entry_point=Misspelt)


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


@pytest.mark.parametrize("name", TASKS)
def test_tasks_that_will_not_do_are_told_before_anything_is_written(tmp_path, capsys, name):
    assert trained(tmp_path, f"{HERE}:{name}-v0") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{HERE}:{name}-v0" in line and TASKS[name] in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "field, change",
    [
        ("observations", lambda values: values.astype(np.float64)),
        ("observations", list),
        ("terminated", list),
        ("success", as_objects),
        ("success", list),
        ("name", as_objects),
        ("name", lambda values: [[1]] * (len(values) - 1) + [[1, 2]]),
        ("count", lambda values: values.astype(np.uint8)),
    ],
)
def test_what_numpy_takes_for_an_array_will_do(field, change):
    as_declared, changed = (job_of(Sloppy(6, makes=makes)).episodes[0] for makes in ({}, {field: change}))
    assert set(changed.infos) == {"success", "count"}
    for name in ("observations", "actions", "rewards", "mask"):
        np.testing.assert_array_equal(getattr(as_declared, name), getattr(changed, name))
    np.testing.assert_array_equal(as_declared.infos["success"], changed.infos["success"])


def test_infos_keep_what_they_are_and_actions_what_was_drawn():
    episodes = job_of(Sloppy(6)).episodes[0]
    np.testing.assert_array_equal(episodes.infos["count"][0, :, 0], [0, 0.5, 0.5])  # integers at first
    changed = job_of(Sloppy(6, makes={"actions": None})).episodes[0]
    np.testing.assert_array_equal(changed.actions, episodes.actions)
    assert (changed.actions != 0).all()


def job_of(env):
    """The rollouts of two tasks, three episodes each."""
    policy = make_policy(Architecture(2, 1, False, 2, (4,)))
    tasks = [{"goal": 0.2}, {"goal": 0.8}]
    plan = AdaptationPlan(3, (0.1,), 0.9, 1.0)
    return meta_rollout(env, policy, random_params(policy, dtype=torch.float32), tasks, plan, StreamName(1, 0, 0, 0))


def test_ends_are_truth_values():
    with pytest.raises(envs.UserError, match=r"terminated of step 0: expected bool of shape \(6,\), got int8"):
        job_of(Sloppy(6, makes={"terminated": lambda values: values.astype(np.int8)}))


def test_what_is_safe_is_asked_in_an_episode(tmp_path):
    assert trained(tmp_path, f"{HERE}:Planning-v0", "--explore", "0.4") == 0


def test_a_policy_that_overflows_by_itself_is_told_from_an_update_that_does():
    runner = JobRunner(WorkerSpec("2DNavigation-v0", {}, Architecture(2, 2, False, 2, (4,))))
    params = random_params(runner.policy, dtype=torch.float32)
    params["sigma"] = torch.full_like(params["sigma"], 90.0)
    arrays = {name: value.numpy() for name, value in params.items()}
    tasks, plan = [{"goal": [0.1, 0.2]}], AdaptationPlan(3, (0.1,), 0.9, 1.0)
    with pytest.raises(WorkerError, match=r"^the policy overflowed: .* task 0, .* a smaller outer step may help$"):
        runner.run(Job(arrays, tasks, plan, StreamName(1, 0, 0, 0), 1))


def test_the_check_of_an_environment_tells_what_has_no_words(capsys):
    assert check.main([f"{HERE}:Speechless-v0"]) == 2
    assert "Speechless: no text" in capsys.readouterr().err
    assert in_one_line(KeyError("leaf")) == "KeyError: 'leaf' (no place known)"


def test_a_hook_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(Troubled, "task_label", lambda task: task["leaf"], raising=False)
    monkeypatch.setattr(envs.adapter, "entry_point", lambda name: Troubled)
    with pytest.raises(envs.UserError, match=f"environment {HERE}:Mute-v0: KeyError: 'leaf'"):
        envs.task_label(f"{HERE}:Mute-v0", {})
