"""The environments by name; importing this package registers the built-in ones with gymnasium.

This registry and the families' own folders are all that knows the ids: what else is said of an environment (its
description, labels of its tasks, pictures, films) is looked up here, by name.

Nothing heavy is imported before an environment is made, so one whose physics engine is not installed hurts nobody
else.
"""

import contextlib
import difflib
import importlib
import json
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Bool, Float

from rl.envs import adapter
from rl.envs.base import ScalarEnv, Task, TaskVectorEnv, read_options
from rl.envs.metaworld.benchmark import IDS as META_WORLD
from rl.errors import UserError, text_of


class Row(NamedTuple):
    """One environment: module:class of a `TaskVectorEnv`, and keyword arguments that the id fixes."""

    constructor: str
    fixed: dict[str, Any] = {}


# Of success, at any step or at the last one; their rates are named beside those of classes, which so have other names.
CRITERIA = ("any", "final")

# id -> row. A new environment is one more line.
REGISTRY = {
    "2DNavigation-v0": Row("rl.envs.navigation.environment:Navigation"),
    "CTgraphEnvGoalChange-v0": Row("rl.envs.ctgraph.environment:CTGraph"),
    "Bandit-K5-v0": Row("rl.envs.bandit:BernoulliBandit", {"num_arms": 5}),
    "Bandit-K10-v0": Row("rl.envs.bandit:BernoulliBandit", {"num_arms": 10}),
    "Bandit-K50-v0": Row("rl.envs.bandit:BernoulliBandit", {"num_arms": 50}),
    "TabularMDP-v0": Row("rl.envs.tabular_mdp:TabularMDP"),
    "HalfCheetahDir-v1": Row("rl.envs.mujoco.half_cheetah:HalfCheetahDir"),
    "HalfCheetahVel-v1": Row("rl.envs.mujoco.half_cheetah:HalfCheetahVel"),
    "AntDir-v1": Row("rl.envs.mujoco.ant:AntDir"),
    "AntVel-v1": Row("rl.envs.mujoco.ant:AntVel"),
    "AntPos-v0": Row("rl.envs.mujoco.ant:AntPos"),
} | {name: Row("rl.envs.metaworld.benchmark:MetaWorldML", {"name": name}) for name in META_WORLD}


def known() -> list[str]:
    """The ids of the built-in environments."""
    return list(REGISTRY)


def options(
    name: str, config_path: str | Path | None = None, seed: int = 0, horizon: int | None = None
) -> dict[str, Any]:
    """Read and check, in the parent process, what `make` needs beyond the name and the number of episodes.

    Args:
        name: a built-in id, or package.module:Id for a user's own environment.
        config_path: the environment's configuration file.
        seed: of the task sets, where they are drawn once for a run.
        horizon: steps of an episode where the user may choose.

    Returns:
        Keyword arguments for `make` and `make_scalar`, which can be pickled.

    Raises:
        UserError: an unknown environment, a configuration file that is missing, wrong, or not wanted.

    Usage: options = rl.envs.options("CTgraphEnvGoalChange-v0", "rl/envs/ctgraph/ctgraph_d2.json")
    """
    if ":" not in name:
        return _load(name).read_options(name, config_path, seed, horizon)
    with adapter.users_code(name):
        entry_point = adapter.entry_point(name)
        if hasattr(entry_point, "read_options"):
            found = entry_point.read_options(name, config_path, seed, horizon)
        else:
            found = read_options(entry_point, name, config_path, horizon)
        adapter.make(name, 1, **found).close()  # whatever is wrong with it is found out in the parent process
    return found


def make(name: str, num_envs: int, **options: Any) -> Any:
    """Make an environment with N episodes side by side, each with a task of its own.

    Args:
        name: a built-in id, or package.module:Id for a user's own environment.
        num_envs: N, at least 1.
        options: as from `rl.envs.options`.

    Returns:
        A `TaskVectorEnv`, or a user's own environment that works like one. An episode that has ended stays as it is.

    Raises:
        UserError: an unknown environment.

    Usage: env = rl.envs.make("2DNavigation-v0", 20, **rl.envs.options("2DNavigation-v0"))
    """
    if ":" in name:
        return adapter.make(name, num_envs, **options)
    return _load(name)(num_envs, **REGISTRY[name].fixed, **options)


def sample_tasks(name: str, env: Any, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
    """Draw tasks as `TaskVectorEnv.sample_tasks` does, from code that may be the user's, and check them.

    Args:
        name: the environment's, for messages.
        env: the environment, as from `make`.
        num_tasks: how many.
        split: "train" or "test".
        rng: a generator.

    Raises:
        UserError: the environment's code returned something else.

    Usage: env.set_tasks(rl.envs.sample_tasks(name, env, env.num_envs, "train", numpy.random.default_rng(0)))
    """
    with adapter.users_code(name):
        tasks = env.sample_tasks(num_tasks, split, rng)
    expected = f"environment {name}: sample_tasks must return a list of {num_tasks} dicts that JSON can hold"
    if not isinstance(tasks, list) or len(tasks) != num_tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(expected)
    for task in tasks:
        try:
            kept = json.loads(json.dumps(task, allow_nan=False))
            pickle.dumps(task)  # of subclasses of dict, only some can be sent to workers
            same = kept == task
        except (Exception, SystemExit) as error:
            raise UserError(f"{expected}: {text_of(error)}") from error
        if not same:
            raise UserError(f"{expected}, and gives back as they are: {task!r:.100} becomes {kept!r:.100}")
        if not isinstance(task_class(task), str | None) or task_class(task) in CRITERIA:
            raise UserError(
                f"environment {name}: the env_name of a task is {task_class(task)!r:.60}; expected the name of its "
                f"class, other than {' and '.join(CRITERIA)}"
            )
    return tasks


def close(env: Any) -> None:
    """Close an environment; what a user's own raises there spoils no result."""
    with contextlib.suppress(Exception, SystemExit):
        env.close()


def make_scalar(name: str, render_mode: str | None = None, **options: Any) -> ScalarEnv:
    """Make an environment with one episode, a `gymnasium.Env` that also has sample_tasks and set_tasks.

    Args:
        name: as for `make`.
        render_mode: "rgb_array", or None where nothing is to be seen.
        options: as from `rl.envs.options`.

    Raises:
        UserError: an unknown environment, or one that cannot be seen here.

    Usage: env = rl.envs.make_scalar("Bandit-K5-v0"); env.set_tasks(env.sample_tasks(1, "train", rng))
    """
    if render_mode is None:
        return ScalarEnv(make(name, 1, **options))
    if render_mode not in ScalarEnv.metadata["render_modes"]:
        raise UserError(f"environment {name}: expected the render_mode rgb_array or None, got {render_mode!r}")
    scene_class = scene(name)
    env = make(name, 1, **options, **scene_class.env_options)
    return ScalarEnv(env, scene_class(env))


vars(make_scalar)["metadata"] = ScalarEnv.metadata  # where gymnasium.make looks for the ways to render


def describe(name: str, config_path: str | Path | None = None) -> str:
    """An environment in words, for titles: its name and what its configuration file makes of it."""
    with adapter.users_code(name):
        return name if config_path is None else _hook(name, "describe")(name, config_path)


def task_label(name: str, task: Task) -> str:
    """A few words for a task, for legends and titles; empty where they would be many."""
    with adapter.users_code(name):
        return _hook(name, "task_label")(task)


def task_class(task: Task) -> str | None:
    """Which class a task belongs to, where an environment has several: a task says so as `env_name`."""
    return task.get("env_name")


def success(name: str, rewards: Float[np.ndarray, "K T E U"]) -> Bool[np.ndarray, "K E U"] | None:
    """Which episodes succeeded, of an environment whose rewards tell; None of any other."""
    with adapter.users_code(name):
        return _hook(name, "success")(rewards)


def protocols(name: str) -> tuple[str, ...]:
    """What test.py's --protocol may be on this environment, beside "paper"."""
    return _hook(name, "protocols")


def pictures(name: str) -> ModuleType | None:
    """The module that draws an environment, with `trajectories` or `Scene` or both; None: nothing does.

    Raises:
        UserError: an environment that cannot be found here.
    """
    entry_point = _entry_point(name)
    module = getattr(entry_point, "pictures", None)
    if module is None and "rgb_array" in (getattr(entry_point, "metadata", None) or {}).get("render_modes", ()):
        module = "rl.envs.frames"
    with adapter.users_code(name):
        return None if module is None else importlib.import_module(module)


def scene(name: str) -> Any:
    """The environment's `rl.drawing.Scene`, a class, once it can be rendered here.

    Raises:
        UserError: it has none, or needs OpenGL where there is none.
    """
    found = getattr(pictures(name), "Scene", None)
    if found is None:
        raise UserError(f"there are no pictures of {name}; docs/environments.md says how to add some")
    if found.needs_opengl:
        importlib.import_module("rl.envs.mujoco.opengl").choose()
    return found


def _hook(name: str, hook: str) -> Any:
    """A class attribute of the environment. What has none, or cannot be imported here, is described as any other: a
    run's curves can be drawn where its environment is not installed.
    """
    try:
        entry_point = _entry_point(name)
    except (UserError, ImportError):
        entry_point = None
    return getattr(entry_point, hook, getattr(TaskVectorEnv, hook))


def _entry_point(name: str) -> Any:
    """What makes an environment: its class, or, of a user's, what is registered."""
    return adapter.entry_point(name) if ":" in name else _load(name)


def _load(name: str) -> type[TaskVectorEnv]:
    """The class of a built-in environment."""
    if name not in REGISTRY:
        folded = {built_in.casefold(): built_in for built_in in REGISTRY}
        similar = " or ".join(folded[found] for found in difflib.get_close_matches(name.casefold(), folded, n=2))
        raise UserError(
            f"unknown environment {name!r}{f' (did you mean {similar}?)' if similar else ''}; "
            f"known: {', '.join(known())}, or package.module:Id for one of your own"
        )
    module, _, attribute = REGISTRY[name].constructor.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rl":
            raise
        raise UserError(
            f"environment {name} needs the package {error.name}, which is not installed: "
            "pip install -r rl/requirements.txt"
        ) from error


def _register() -> None:
    for name in REGISTRY:
        # A second import of this package under a reloader must not warn.
        if name not in gymnasium.registry:
            gymnasium.register(
                name, entry_point="rl.envs:make_scalar", vector_entry_point="rl.envs:make", kwargs={"name": name}
            )


_register()
