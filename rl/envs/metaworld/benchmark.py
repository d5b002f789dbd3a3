"""ML1<Task>-v2, ML10-v2 and ML45-v2: robot manipulation with a Sawyer arm, Meta-World (arXiv 1910.10897).

`-v2` is the published name of the benchmarks. Behind it stand the v3 environments of the package metaworld 3.1.1, with
their reward function "v2". An episode has 200 steps, as in the paper; the benchmark's own have 500.

Only the task decides an episode: nothing in Meta-World is random once the frozen parameters are known.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float32, Int

from rl.envs.base import Step, Task, TaskVectorEnv
from rl.envs.labels import signed
from rl.errors import EpisodeError, UserError

HORIZON, MAX_HORIZON = 200, 500  # environment steps of 12.5 ms

TaskSets = dict[str, dict[str, list[list[float]]]]  # split -> env_name -> frozen parameters of each task

_TASKS = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
"""
_ENV_NAMES = [f"{task}-v3" for task in _TASKS.split()]
# id -> what Meta-World calls it: ML1Push-v2 -> push-v3.
IDS = {f"ML1{name.removesuffix('-v3').title().replace('-', '')}-v2": name for name in _ENV_NAMES} | {
    "ML10-v2": "ML10",
    "ML45-v2": "ML45",
}


class MetaWorldML(TaskVectorEnv):
    """N episodes of a meta-learning benchmark; a task is {"env_name": "push-v3", "rand_vec": its frozen parameters}.

    Tasks may differ in class from episode to episode. All episodes of a class take turns on one MuJoCo simulation,
    built when the class is first met.

    Observations [39]: two frames, the present and the last one, of [hand position (m), gripper opening (0 to 1), up to
    two objects' positions (m) and quaternions], then three zeros, where Meta-World shows the goal outside of ML.
    Actions [4]: displacement of the hand in cm, clipped to ±1, and gripper effort.

    `infos` of a step: "success", bool [N], whether the present state counts as success.

    Args:
        num_envs: N.
        name: an id of `IDS`.
        task_sets: as from `read_options`; drawn from seed 0 if None.
        horizon: steps of an episode, at most 500.
    """

    pictures = "rl.envs.metaworld.pictures"
    protocols = ("metaworld",)
    copyable = False

    def __init__(self, num_envs: int, name: str, task_sets: TaskSets | None = None, horizon: int = HORIZON):
        fast = _load("simulation")
        super().__init__(
            num_envs,
            single_observation_space=Box(-fast.MAX_VALUE, fast.MAX_VALUE, (fast.OBSERVATION_SIZE,), np.float32),
            single_action_space=Box(-1.0, 1.0, (4,), np.float32),
            horizon=_checked_horizon(name, horizon),
        )
        self.name = name
        self.task_sets = task_sets or self.read_options(name)["task_sets"]
        self._displacements, self._make_simulation = fast.displacements, fast.Simulation
        self._simulations: dict[str, Any] = {}
        self._episodes: list[Any] = [None] * num_envs
        self._observations = np.zeros((num_envs, *self.single_observation_space.shape), np.float32)

    @classmethod
    def task_label(cls, task: Task) -> str:
        """The class and the last three parameters, mostly the goal in metres: push-v3 (0.05, 0.85, 0.02)."""
        return f"{task.get('env_name')} ({', '.join(map(signed, task.get('rand_vec', [])[-3:]))})"

    @classmethod
    def read_options(
        cls, name: str, config_path: str | Path | None = None, seed: int = 0, horizon: int | None = None
    ) -> dict[str, Any]:
        """Draw the task sets from the seed, 50 tasks a class: {"task_sets": split -> env_name -> lists, "horizon": …}.

        Takes 4 s for ML45: call it once, in the parent; workers get the result.

        Raises:
            UserError: an unknown name, a horizon or seed out of range, a configuration file, or no metaworld.
        """
        options = super().read_options(name, config_path)
        if name not in IDS:
            raise UserError(f"unknown Meta-World benchmark {name!r}; known: {', '.join(IDS)}")
        if not 0 <= seed < 2**32 - 1:
            raise UserError(f"{name}: expected a seed from 0 to {2**32 - 2}, got {seed}")
        horizon = _checked_horizon(name, HORIZON if horizon is None else horizon)
        return options | {"task_sets": _load("task_sets").draw_task_sets(IDS[name], seed), "horizon": horizon}

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Draw equally from all classes of the split, in turn, and for each class without replacement while it lasts.

        Raises:
            UserError: a split that the benchmark does not have, or a number that does not divide by its classes.
        """
        count = self.num_classes(split)
        classes = self.task_sets[split]
        if num_tasks % count:
            raise UserError(
                f"{self.name}: {num_tasks} tasks cannot be drawn equally from the {count} classes of its {split} set; "
                f"expected a multiple of {count}: {count}, {2 * count}, {3 * count}, …"
            )
        chosen = [_choices(vectors, num_tasks // count, rng) for vectors in classes.values()]
        return [_task(*pair) for turn in zip(*chosen, strict=True) for pair in zip(classes, turn, strict=True)]

    def num_classes(self, split: str) -> int:
        """How many classes the split has; `sample_tasks` draws equally from them.

        Raises:
            UserError: a split that the benchmark does not have.
        """
        if split not in self.task_sets:
            raise UserError(f"{self.name} has no task set {split!r}; it has {', '.join(self.task_sets)}")
        return len(self.task_sets[split])

    def assign(self, tasks: list[Task]) -> None:
        """Take over the tasks; each takes effect when its episode begins anew.

        Raises:
            ValueError: a task of an unknown class, or with parameters of the wrong number.
        """
        for i, task in enumerate(tasks):
            simulation = self._simulation(task["env_name"])
            vector = np.asarray(task["rand_vec"], np.float64)
            if vector.shape != simulation.rand_vec_shape or not np.isfinite(vector).all():
                raise ValueError(
                    f"{self.name}, episode {i}: {task['env_name']} takes a rand_vec of {simulation.rand_vec_shape[0]} "
                    f"finite numbers, got {task['rand_vec']}"
                )

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Put the scene and the hand where the task has them."""
        for i in which:
            task = self.tasks[i]
            self._episodes[i] = self._simulation(task["env_name"]).begin(tuple(task["rand_vec"]))
            self._observations[i] = self._episodes[i].observation

    def advance(self, actions: Float[np.ndarray, "N 4"]) -> Step:
        """As `TaskVectorEnv.advance`; no episode ends before the horizon.

        Raises:
            UserError: an action of a running episode is not finite.
            EpisodeError: Meta-World or MuJoCo raised something.
        """
        rewards, success = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        actions = actions.astype(np.float32, copy=False)
        displacements = self._displacements(actions)
        finite = np.isfinite(actions).all(axis=1)
        for i in np.flatnonzero(self.running):
            if not finite[i]:
                raise UserError(f"{self.name}, episode {i}: expected a finite action, got {actions[i].tolist()}")
            try:
                observation, rewards[i], _, _, info = self._episodes[i].step(actions[i], displacements[i])
            except Exception as error:
                raise EpisodeError(i) from error
            self._observations[i] = observation
            success[i] = info["success"]
        return rewards, np.zeros(self.num_envs, bool), {"success": success}

    def observe(self) -> Float32[np.ndarray, "N 39"]:
        """The observations."""
        return self._observations.copy()

    def scene(self, i: int) -> tuple[Any, Any]:
        """(`MjModel`, `MjData`) with episode i's present state, for `mujoco.Renderer`; valid until the next call."""
        return self._episodes[i].scene()

    def _simulation(self, env_name: str) -> Any:
        if env_name not in _ENV_NAMES:
            raise ValueError(f"{self.name}: unknown Meta-World class {env_name!r}; known: {', '.join(_ENV_NAMES)}")
        if env_name not in self._simulations:
            self._simulations[env_name] = self._make_simulation(env_name)
        return self._simulations[env_name]

    def draw_task(self, rng: np.random.Generator) -> Task:
        """Any one of the train set."""
        classes = self.task_sets["train"]
        env_name = list(classes)[rng.integers(len(classes))]
        return _task(env_name, classes[env_name][rng.integers(len(classes[env_name]))])


def _task(env_name: str, rand_vec: Sequence[float]) -> Task:
    return {"env_name": env_name, "rand_vec": list(rand_vec)}


def _choices(items: list, count: int, rng: np.random.Generator) -> list:
    """`count` of the items in random order, none more than once more often than another."""
    order: list[int] = []
    while len(order) < count:
        order.extend(rng.permutation(len(items)))
    return [items[i] for i in order[:count]]


def _checked_horizon(name: str, horizon: int) -> int:
    if not 1 <= horizon <= MAX_HORIZON:
        raise UserError(f"{name}: expected a horizon from 1 to {MAX_HORIZON} steps, got {horizon}")
    return horizon


def _load(module: str) -> ModuleType:
    """A module that needs the package metaworld, which no other environment shall need."""
    try:
        importlib.import_module("rl.envs.mujoco")  # MuJoCo without OpenGL, before Meta-World imports it
        return importlib.import_module(f"rl.envs.metaworld.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rl":
            raise
        raise UserError(
            f"Meta-World environments need the package {error.name}, which is not installed: "
            "pip install metaworld==3.1.1"
        ) from error
