"""What every environment of the project is: independent episodes side by side, each with a task of its own."""

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped

from rl import streams
from rl.envs import labels
from rl.errors import UserError

Task = dict[str, Any]  # that JSON can hold
Infos = dict[str, Shaped[np.ndarray, "N"]]
LARGEST_REWARD = 1e300  # sums of a run's rewards stay finite in float64; observations go into the network as float32
Step = tuple[Float[np.ndarray, "N"], Bool[np.ndarray, "N"], Infos]  # rewards, terminated, fresh infos


def conforming(what: str, value: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A value that an environment gave, as an array, once it is what the environment declares.

    Args:
        what: the value in a word, for the message.
        value: an array, or what makes one.
        shape, dtype: as declared. A dtype of the same kind will do: float64 for float32, integers for floats.

    Raises:
        UserError: another shape or kind of dtype, or a number that is finite and too large to compute with.
    """
    found = np.asarray(value)
    if found.shape != shape or not np.can_cast(found.dtype, dtype, "same_kind"):
        got = f"{found.dtype} of shape {found.shape}" if found.dtype.kind in "biufc" else type(value).__name__
        raise UserError(f"{what}: expected {np.dtype(dtype)} of shape {shape}, got {got}")
    if found.dtype.kind == "f" and found.itemsize > 4:
        largest = LARGEST_REWARD if dtype == np.float64 else np.finfo(np.float32).max
        large = np.abs(found) > largest
        if large.any() and (beyond := found[large & np.isfinite(found)]).size:
            raise UserError(f"{what}: expected numbers within ±{largest:.1e}, got {beyond[0]:g}")
    return found


def read_options(entry_point: Any, name: str, config_path: str | Path | None, horizon: int | None) -> dict[str, Any]:
    """What an entry point gets that does not read its options by itself: the path of the configuration file.

    Raises:
        UserError: a file where it has no argument `env_config_path`, or a horizon.
    """
    if horizon is not None:
        raise UserError(f"environment {name} has a horizon of its own; --horizon is for Meta-World")
    if config_path is None:
        return {}
    taken = inspect.signature(entry_point).parameters.values()
    if not any(one.name == "env_config_path" or one.kind is one.VAR_KEYWORD for one in taken):
        raise UserError(
            f"environment {name} takes no configuration file, got {config_path}; its constructor has no argument "
            "env_config_path"
        )
    return {"env_config_path": str(config_path)}


class TaskVectorEnv(VectorEnv):
    """`num_envs` independent episodes, each with its own task and its own stream of random numbers, no autoreset.

    A subclass gives `sample_tasks` and the four hooks `assign`, `begin`, `advance`, `observe`; this class keeps the
    random streams, counts steps, truncates at the horizon and knows which episodes run. Stepping an episode that has
    ended changes nothing, earns 0 and reports the end again.

    What else is known of an environment is said by further hooks, all optional and all on the class, so that nothing
    is built to ask: `describe`, `task_label`, `success`, `pictures`, `protocols`. A user's own environment may have
    them, too, whether it is one of this class or not.

    Axes: N = num_envs, O = size of an observation, A = size of an action.

    A copy, by `copy.deepcopy` or `pickle`, goes on from the same state; where a physics engine holds the state, it is
    refused.

    Attributes:
        generators: generators[i] is the stream of episode i, a `numpy.random.Generator`.
        running: the episodes that have begun and not ended.
        elapsed: steps taken in the present episode.
        tasks: the present tasks, one an episode; empty before the first `set_tasks` or `reset`.
        num_observations: how many different observations there are, where they are few; else None. It decides how the
            outer step's work is divided, and no result but for that.
        pictures: the module that draws this environment (`rl.drawing` says what is in it); None: nothing does.
        protocols: what test.py's --protocol may be, beside "paper".
        copyable: whether all its state lies in arrays of its own.

    Args:
        num_envs: N, at least 1.
        single_observation_space: one-dimensional, float32.
        single_action_space: a one-dimensional float32 `Box`, `Discrete` counted from 0, or one-dimensional
            `MultiDiscrete`.
        horizon: the most steps that an episode takes.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
    num_observations: int | None = None
    pictures: str | None = None
    protocols: tuple[str, ...] = ()
    copyable = True

    running: Bool[np.ndarray, "N"]
    elapsed: Int[np.ndarray, "N"]
    tasks: list[Any]
    single_observation_space: Box

    def __init__(self, num_envs: int, single_observation_space: Box, single_action_space: Space, horizon: int):
        if num_envs < 1:
            raise ValueError(f"{type(self).__name__}: num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.horizon = horizon
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.observation_space = batch_space(single_observation_space, num_envs)
        self.action_space = batch_space(single_action_space, num_envs)
        # An array for MultiDiscrete, which has as many choices as it has elements.
        self._num_actions: Any = getattr(single_action_space, "nvec", getattr(single_action_space, "n", None))
        self.generators = _Streams(num_envs)
        self.running = np.zeros(num_envs, bool)
        self.terminated = np.zeros(num_envs, bool)
        self.truncated = np.zeros(num_envs, bool)
        self.elapsed = np.zeros(num_envs, np.int64)
        self.tasks = []
        self._tasks_given = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.copyable:
            raise TypeError(
                f"{type(self).__name__}: its state lies in MuJoCo, so it can be neither copied nor pickled; make "
                "another one, and give it the same tasks, seed and actions"
            )
        return super().__reduce_ex__(protocol)

    @classmethod
    def read_options(
        cls, name: str, config_path: str | Path | None = None, seed: int = 0, horizon: int | None = None
    ) -> dict[str, Any]:
        """What the constructor needs beyond `num_envs`: keyword arguments that can be pickled.

        By default the path of the configuration file, as `env_config_path`, where the constructor has such an argument.

        Args:
            name: the environment's id, for messages.
            config_path: the user's configuration file.
            seed: of the task sets, where the environment draws them once for a run.
            horizon: steps of an episode, where the user may choose; None for the environment's own.

        Raises:
            UserError: a configuration file or a horizon for an environment that takes none.
        """
        return read_options(cls, name, config_path, horizon)

    @classmethod
    def describe(cls, name: str, config_path: str | Path) -> str:
        """What a configuration file makes, for titles; two runs are on the same environment where this agrees."""
        return f"{name} {Path(config_path).stem}"

    @classmethod
    def task_label(cls, task: Task) -> str:
        """A few words for a task, for legends and titles; empty where they would be many."""
        return labels.in_words(task)

    @classmethod
    def success(cls, rewards: Float[np.ndarray, "K T E U"]) -> Bool[np.ndarray, "K E U"] | None:
        """Which episodes succeeded, where rewards tell and the environment reports nothing itself (infos["success"]).

        Args:
            rewards: of K tasks, T steps, E episodes, after each number of updates.
        """
        return None

    def safe_actions(self) -> Bool[np.ndarray, "N A"] | None:
        """Which actions do not end each episode at once, at least one each; None where the environment cannot say."""
        return None

    @abstractmethod
    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Draw tasks from `rng` alone.

        Args:
            num_tasks: how many.
            split: "train" or "test"; the same distribution unless the environment has disjoint sets.
            rng: a generator.
        """

    def num_classes(self, split: str) -> int:
        """Of how many classes `sample_tasks` draws equally: a number of tasks is a multiple of it."""
        return 1

    @abstractmethod
    def assign(self, tasks: list[Task]) -> None:
        """Take over one task an episode; takes effect at once.

        Raises:
            ValueError: a task that this environment does not have.
        """

    @abstractmethod
    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Start new episodes in the places `which`, drawing from `self.generators[i]` alone."""

    @abstractmethod
    def advance(self, actions: Shaped[np.ndarray, "N ..."]) -> Step:
        """One step of the episodes marked in `self.running`; all others stay as they are.

        Args:
            actions: [N, A] or, for discrete actions, integers [N]; those of ended episodes mean nothing.

        Returns:
            (rewards, terminated, infos); the caller ignores rewards and ends of episodes that do not run.
        """

    @abstractmethod
    def observe(self) -> Float32[np.ndarray, "N O"]:
        """The present observations, in an array that the caller may keep."""

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give episode i the task tasks[i], from now on.

        Raises:
            ValueError: not exactly one task an episode, or a task that this environment does not have.

        Usage: env.set_tasks(env.sample_tasks(env.num_envs, "train", rng))
        """
        tasks = list(tasks)
        if len(tasks) != self.num_envs:
            raise ValueError(f"{type(self).__name__}: expected {self.num_envs} tasks, one an episode, got {len(tasks)}")
        self.assign(tasks)
        self.tasks, self._tasks_given = tasks, True

    def draw_task(self, rng: np.random.Generator) -> Task:
        """The task of an episode that was given none."""
        return self.sample_tasks(1, "train", rng)[0]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, "N O"], Infos]:
        """Start new episodes.

        Where no tasks were set, every episode draws one from its own stream, anew with each seed, so that the seed
        decides all.

        Args:
            seed: one integer for each episode (up to 128 bits: a key of `rl.streams`; None continues that episode's
                present stream), or one integer s, which stands for s, s+1, …, or None to continue all of them.
            options: {"reset_mask": bool [N]} restarts the marked episodes alone, as gymnasium defines it.
        """
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        else:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        mask = np.ones(self.num_envs, bool)
        if options and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"], bool)
        if len(seeds) != self.num_envs or mask.shape != (self.num_envs,):
            raise ValueError(
                f"{type(self).__name__}: expected {self.num_envs} seeds and a mask of shape ({self.num_envs},), "
                f"got {len(seeds)} and {mask.shape}"
            )
        which = np.flatnonzero(mask)
        for i in which:
            key = seeds[i]
            if key is not None:
                self.generators.name(i, int(key))
        if not self._tasks_given:
            seeded = {int(i) for i in which if seeds[i] is not None}
            drawn = [
                self.draw_task(self.generators[i]) if i in seeded or not self.tasks else self.tasks[i]
                for i in range(self.num_envs)
            ]
            self.assign(drawn)
            self.tasks = drawn
        self.running[which] = True
        self.terminated[which] = False
        self.truncated[which] = False
        self.elapsed[which] = 0
        self.begin(which)
        return self.observe(), {}

    def step(
        self, actions: Shaped[np.ndarray, "_ ..."]
    ) -> tuple[
        Float32[np.ndarray, "N O"], Float64[np.ndarray, "N"], Bool[np.ndarray, "N"], Bool[np.ndarray, "N"], Infos
    ]:
        """One step of every episode that has not ended: (observations, rewards, terminated, truncated, infos).

        Args:
            actions: [N, A], or integers [N] for discrete actions.

        Raises:
            ValueError: actions of another shape, or discrete ones that the space does not have.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"{type(self).__name__}: expected actions of shape {self.action_space.shape}, got {actions.shape}"
            )
        if self._num_actions is not None and not ((actions >= 0) & (actions < self._num_actions)).all():
            raise ValueError(f"{type(self).__name__}: actions go from 0 to {self._num_actions - 1}, got {actions}")
        running = self.running
        rewards, terminated, infos = self.advance(actions)
        self.elapsed += running
        self.terminated |= running & terminated
        self.truncated |= running & ~self.terminated & (self.elapsed >= self.horizon)
        self.running = ~(self.terminated | self.truncated)
        return self.observe(), np.where(running, rewards, 0.0), self.terminated.copy(), self.truncated.copy(), infos


class _Streams:
    """One random stream an episode, built when it is first read: many environments draw nothing at all."""

    def __init__(self, count: int):
        self._streams: list[int | np.random.Generator | None] = [None] * count

    def name(self, i: int | np.integer, key: int) -> None:
        """Episode i draws from the beginning of the stream `key` from now on."""
        self._streams[i] = key

    def __getitem__(self, i: int | np.integer) -> np.random.Generator:
        stream = self._streams[i]
        if not isinstance(stream, np.random.Generator):
            stream = np.random.default_rng() if stream is None else streams.generator(stream)
            self._streams[i] = stream
        return stream


class ScalarEnv(gymnasium.Env):
    """The ordinary gymnasium face of a `TaskVectorEnv`: the same dynamics with one episode.

    Args:
        vector_env: of one episode.
        scene: the `rl.drawing.Scene` of it that `render` shows, if any.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, vector_env: Any, scene: Any = None):
        self.vector_env, self.scene = vector_env, scene
        self.render_mode = None if scene is None else "rgb_array"
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """As `TaskVectorEnv.sample_tasks`."""
        return self.vector_env.sample_tasks(num_tasks, split, rng)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """As `TaskVectorEnv.set_tasks`, with exactly one task."""
        self.vector_env.set_tasks(tasks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, "O"], dict[str, Any]]:
        """Start a new episode: (observation, info)."""
        super().reset(seed=seed)
        observations, _ = self.vector_env.reset(seed=None if seed is None else [seed])
        if self.scene is not None:
            self.scene.begin(self.vector_env.tasks[0])
        return observations[0], {}

    def step(self, action: Any) -> tuple[Float32[np.ndarray, "O"], float, bool, bool, dict[str, Any]]:
        """One step, by an action [A] or an integer: (observation, reward, terminated, truncated, info)."""
        observations, rewards, terminated, truncated, infos = self.vector_env.step(np.asarray(action)[None])
        if self.scene is not None:
            self.scene.follow()
        info = {name: values[0] for name, values in infos.items()}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Any:
        """The present state as a picture, uint8 [240, 320, 3]; None where none was asked for."""
        return None if self.scene is None else self.scene.view()[0]

    def close(self) -> None:
        """Close the vector environment, and the renderer where there is one."""
        if self.scene is not None:
            self.scene.close()
        self.vector_env.close()
