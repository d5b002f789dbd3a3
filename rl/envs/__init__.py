"""The environments by name; importing this package registers the built-in ones with gymnasium.

Nothing heavy is imported before an environment is asked for, so one whose physics engine is not installed hurts nobody
else.
"""

import difflib
import importlib
import json

import gymnasium

from rl.envs import adapter
from rl.envs.base import ScalarEnv, TaskVectorEnv
from rl.envs.metaworld.benchmark import IDS as META_WORLD
from rl.errors import UserError

# id -> (module:class of a TaskVectorEnv, fixed keyword arguments). A new environment is one more line.
_BUILT_IN = {
    "2DNavigation-v0": ("rl.envs.navigation:Navigation", {}),
    "CTgraphEnvGoalChange-v0": ("rl.envs.ctgraph.environment:CTGraph", {}),
    "Bandit-K5-v0": ("rl.envs.bandit:BernoulliBandit", {"num_arms": 5}),
    "Bandit-K10-v0": ("rl.envs.bandit:BernoulliBandit", {"num_arms": 10}),
    "Bandit-K50-v0": ("rl.envs.bandit:BernoulliBandit", {"num_arms": 50}),
    "TabularMDP-v0": ("rl.envs.tabular_mdp:TabularMDP", {}),
    "HalfCheetahDir-v1": ("rl.envs.mujoco.half_cheetah:HalfCheetahDir", {}),
    "HalfCheetahVel-v1": ("rl.envs.mujoco.half_cheetah:HalfCheetahVel", {}),
    "AntDir-v1": ("rl.envs.mujoco.ant:AntDir", {}),
    "AntVel-v1": ("rl.envs.mujoco.ant:AntVel", {}),
    "AntPos-v0": ("rl.envs.mujoco.ant:AntPos", {}),
} | {name: ("rl.envs.metaworld.benchmark:MetaWorldML", {"name": name}) for name in META_WORLD}


def known():
    """The ids of the built-in environments, a list of str."""
    return list(_BUILT_IN)


def options(name, config_path=None, seed=0, horizon=None):
    """Read and check, in the parent process, what `make` needs beyond the name and the number of episodes.

    Args:
        name: a built-in id, or package.module:Id for a user's own environment.
        config_path: the environment's configuration file, or None.
        seed: of the task sets, where they are drawn once for a run.
        horizon: steps of an episode where the user may choose, or None.

    Returns:
        A picklable dict of keyword arguments for `make` and `make_scalar`.

    Raises:
        UserError: an unknown environment, a configuration file that is missing, wrong, or not wanted.

    Usage: options = rl.envs.options("CTgraphEnvGoalChange-v0", "rl/envs/ctgraph/ctgraph_d2.json")
    """
    if ":" in name:
        nothing = TaskVectorEnv.read_options(name, config_path, seed, horizon)
        adapter.check(name)
        return nothing
    return _load(name)[0].read_options(name, config_path, seed, horizon)


def make(name, num_envs, **options):
    """Make an environment with N episodes side by side, each with a task of its own.

    Args:
        name: a built-in id, or package.module:Id for a user's own environment.
        num_envs: N, at least 1.
        options: as from `rl.envs.options`.

    Returns:
        A `TaskVectorEnv`, whose set_tasks takes N tasks. reset(seed=…) returns (observations float32 [N, O], infos);
        step(actions), actions [N, A] or integers [N], returns (observations float32 [N, O], rewards float64 [N],
        terminated bool [N], truncated bool [N], infos). An episode that has ended stays as it is.

    Raises:
        UserError: an unknown environment.

    Usage: env = rl.envs.make("2DNavigation-v0", 20, **rl.envs.options("2DNavigation-v0"))
    """
    if ":" in name:
        return adapter.make(name, num_envs)
    constructor, fixed = _load(name)
    return constructor(num_envs, **fixed, **options)


def sample_tasks(name, env, num_tasks, split, rng):
    """Draw tasks as `TaskVectorEnv.sample_tasks` does, from code that may be the user's, and check them.

    Args:
        name: the environment's, for messages.
        env: the environment, as from `make`.
        num_tasks: how many.
        split: "train" or "test".
        rng: a `numpy.random.Generator`.

    Returns:
        A list of `num_tasks` dicts that JSON can hold; env.set_tasks takes one for each episode.

    Raises:
        UserError: the environment's code returned something else.

    Usage: env.set_tasks(rl.envs.sample_tasks(name, env, env.num_envs, "train", numpy.random.default_rng(0)))
    """
    with adapter.sys_exit_as_error(name):
        tasks = env.sample_tasks(num_tasks, split, rng)
    wanted = f"environment {name}: sample_tasks must return a list of {num_tasks} dicts that JSON can hold"
    if not isinstance(tasks, list) or len(tasks) != num_tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(wanted)
    try:
        json.dumps(tasks)
    except (TypeError, ValueError) as error:
        raise UserError(f"{wanted}: {error}") from error
    return tasks


def make_scalar(name, **options):
    """Make an environment with one episode, a `gymnasium.Env` that also has sample_tasks and set_tasks.

    Args:
        name: as for `make`.
        options: as from `rl.envs.options`.

    Returns:
        A `ScalarEnv`: reset(seed=…) returns (observation float32 [O], info); step(action), action [A] or an integer,
        returns (observation float32 [O], reward, terminated, truncated, info).

    Usage: env = rl.envs.make_scalar("Bandit-K5-v0"); env.set_tasks(env.sample_tasks(1, "train", rng))
    """
    return ScalarEnv(make(name, 1, **options))


def _load(name):
    """The class and the fixed arguments of a built-in environment."""
    if name not in _BUILT_IN:
        folded = {built_in.casefold(): built_in for built_in in _BUILT_IN}
        similar = " or ".join(folded[found] for found in difflib.get_close_matches(name.casefold(), folded, n=2))
        raise UserError(
            f"unknown environment {name!r}{f' (did you mean {similar}?)' if similar else ''}; "
            f"known: {', '.join(known())}, or package.module:Id for one of your own"
        )
    path, fixed = _BUILT_IN[name]
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute), fixed
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rl":
            raise
        raise UserError(
            f"environment {name} needs the package {error.name}, which is not installed: "
            "pip install -r rl/requirements.txt"
        ) from error


def _register():
    for name in _BUILT_IN:
        # A second import of this package under a reloader must not warn.
        if name not in gymnasium.registry:
            gymnasium.register(
                name, entry_point="rl.envs:make_scalar", vector_entry_point="rl.envs:make", kwargs={"name": name}
            )


_register()
