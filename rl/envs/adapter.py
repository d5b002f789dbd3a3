"""Environments of the user's own: `--env-name package.module:Id`.

The module is imported, which lets it register `Id` with gymnasium. If that registration has a `vector_entry_point`
whose environment can sample and set tasks, it is used as it is; otherwise ordinary environments, one an episode, are
stepped in a loop.
"""

import contextlib
import copy
import importlib
import inspect
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, SupportsIndex

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Float, Float32, Int, Shaped

from rl.envs.base import Step, Task, TaskVectorEnv, conforming
from rl.errors import EpisodeError, UserError, in_one_line

_TASK_METHODS = ("sample_tasks", "set_tasks")
_WHAT_TO_ADD = (
    "add sample_tasks(num_tasks, split, rng), which returns a list of dicts that JSON can hold, "
    "and set_tasks(tasks), which takes a list of one such dict for each episode"
)


def make(name: str, num_envs: int, **options: Any) -> VectorEnv:
    """The user's environment `name`, "package.module:Id", with `num_envs` episodes side by side.

    Raises:
        UserError: module or id not found, no horizon, no tasks, or spaces that no policy here fits; what its code
            raises.
    """
    if num_envs < 1:
        raise ValueError(f"{name}: num_envs must be at least 1, got {num_envs}")
    with users_code(name):
        spec = _find(name)
        if spec.vector_entry_point is not None:
            env = gymnasium.make_vec(_for_make_vec(spec), num_envs, vectorization_mode="vector_entry_point", **options)
            if all(callable(getattr(env, method, None)) for method in _TASK_METHODS):
                return _checked_vector(name, env, spec, num_envs)
            env.close()
        if spec.entry_point is None:
            raise UserError(f"environment {name} cannot change its task: {_WHAT_TO_ADD}")
        _check_horizon(name, spec.max_episode_steps)
        return AdaptedEnv(name, spec, num_envs, **options)


def entry_point(name: str) -> Any:
    """What `make` calls, where the hooks of `TaskVectorEnv` are looked for: as a rule a class.

    Raises:
        UserError: module or id not found; what its code raises.
    """
    with users_code(name):
        spec = _find(name)
        registered = [point for point in (spec.vector_entry_point, spec.entry_point) if point is not None]
        points = [_loaded(point) for point in registered]
    return next((point for point in points if all(hasattr(point, method) for method in _TASK_METHODS)), points[-1])


def _loaded(point: Any) -> Any:
    return load_env_creator(point) if isinstance(point, str) else point


def _for_make_vec(spec: EnvSpec) -> EnvSpec:
    """What gymnasium makes a vector environment from: it hands `max_episode_steps` on, which not every one takes."""
    taken = inspect.signature(_loaded(spec.vector_entry_point)).parameters
    if "max_episode_steps" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return spec
    spec = copy.copy(spec)
    spec.max_episode_steps = None
    return spec


def look_here() -> None:
    """Have modules looked for in the folder that the user stands in: last, so that a file there hides no installed
    package.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


@contextlib.contextmanager
def users_code(name: str, what: str = "") -> Iterator[None]:
    """While entered, whatever the user's code raises is one line that names environment and place; `sys.exit`, too,
    which would end the program without a message.

    Args:
        what: what the line begins with; default: the environment.

    Raises:
        UserError: it raised something.
    """
    try:
        yield
    except (UserError, EpisodeError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{what or f'environment {name}'}: {in_one_line(error)}") from error


@contextlib.contextmanager
def _episode(index: SupportsIndex) -> Iterator[None]:
    """While entered, whatever the user's code raises is an `EpisodeError` of that episode; `sys.exit`, too."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise EpisodeError(index) from error


class AdaptedEnv(TaskVectorEnv):
    """N ordinary gymnasium environments of the user's, stepped one by one, as a `TaskVectorEnv`.

    Observations of any shape are flattened to float32, those of other spaces than Box as by
    `gymnasium.wrappers.FlattenObservation`, and images (uint8, 0 to 255) are scaled to [0, 1]. Actions are given back
    their shape and type, and are clipped to a bounded Box as `gymnasium.wrappers.ClipAction` does. The environments'
    own seeds come from the episodes' streams.
    Of their `info`, "success" is kept.

    Args:
        name: "package.module:Id", for messages.
        spec: the registration.
        num_envs: N.
        options: what the user's constructor takes.
    """

    def __init__(self, name: str, spec: EnvSpec, num_envs: int, **options: Any):
        first = _make_scalar(spec, options)
        if not all(callable(_attribute(first, method)) for method in _TASK_METHODS):
            raise UserError(f"environment {name} cannot change its task: {_WHAT_TO_ADD}")
        self.inner_observation_space: Any = first.observation_space
        if not self.inner_observation_space.is_np_flattenable:
            raise UserError(
                f"environment {name}: observations must be of a space that gymnasium.wrappers.FlattenObservation "
                f"flattens, got {self.inner_observation_space}"
            )
        if not flatdim(self.inner_observation_space):
            raise UserError(f"environment {name}: observations must have entries, got {self.inner_observation_space}")
        self.scales = _scales(self.inner_observation_space)
        self.inner_action_space: Any = first.action_space
        assert spec.max_episode_steps is not None  # `make` has looked
        super().__init__(
            num_envs, self._flat_space(), _flat_actions(name, first.action_space), horizon=spec.max_episode_steps
        )
        self.envs = [first, *(_make_scalar(spec, options) for _ in range(num_envs - 1))]
        self.observations = np.zeros((num_envs, *self.single_observation_space.shape), np.float32)

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> Any:
        """The user's tasks, which `rl.envs.sample_tasks` checks."""
        return _attribute(self.envs[0], "sample_tasks")(num_tasks, split, rng)

    def assign(self, tasks: list[Task]) -> None:
        """Hand every environment its task.

        Raises:
            EpisodeError: the environment raised something or called sys.exit.
        """
        for i, (env, task) in enumerate(zip(self.envs, tasks, strict=True)):
            with _episode(i):
                _attribute(env, "set_tasks")([task])

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Reset the environments.

        Raises:
            EpisodeError: the environment raised something, called sys.exit, or gave something else than it declares.
        """
        for i in which:
            with _episode(i):
                observation, _ = self.envs[i].reset(seed=int(self.generators[i].integers(2**31)))
                self.observations[i] = self._flat(observation)

    def advance(self, actions: Shaped[np.ndarray, "N ..."]) -> Step:
        """Step the environments that run.

        Raises:
            EpisodeError: the environment raised something, called sys.exit, or gave something else than it declares.
        """
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        success, reported = np.zeros(self.num_envs, bool), False
        for i in np.flatnonzero(self.running):
            with _episode(i):
                observation, reward, terminated[i], truncated, info = self.envs[i].step(self._inner_action(actions[i]))
                self.observations[i] = self._flat(observation)
                rewards[i] = conforming("reward", reward, (), np.float64)
                if "success" in info:
                    success[i], reported = _flag("info['success']", info["success"]), True
            self.truncated[i] = truncated and not terminated[i]
        return rewards, terminated, {"success": success} if reported else {}

    def observe(self) -> Float32[np.ndarray, "N O"]:
        """The flattened observations."""
        return self.observations.copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def render(self) -> Any:
        """The first episode's frame."""
        return self.envs[0].render()

    def _flat_space(self) -> Box:
        """The observation space as a float32 vector."""
        flat: Any = flatten_space(self.inner_observation_space)
        low, high = (bound.astype(np.float32) / self.scales for bound in (flat.low, flat.high))
        return Box(low, high, dtype=np.float32)

    def _flat(self, observation: Any) -> Shaped[np.ndarray, "O"]:
        space = self.inner_observation_space
        if isinstance(space, Box):
            return conforming("observation", observation, space.shape, space.dtype).ravel() / self.scales
        if not space.contains(observation):
            raise UserError(f"observation: expected one of {space}, got {observation}")
        return flatten(space, observation) / self.scales

    def _inner_action(self, action: Any) -> Any:
        space = self.inner_action_space
        if isinstance(space, Discrete):
            return space.start + action
        if isinstance(space, MultiDiscrete | MultiBinary):
            return (action.reshape(space.shape) + getattr(space, "start", 0)).astype(space.dtype)
        return np.clip(np.asarray(action, space.dtype).reshape(space.shape), space.low, space.high)


def _flag(what: str, value: Any) -> bool:
    """A truth value, given as such or as 0 or 1."""
    if conforming(what, value, (), np.float64) not in (0, 1):
        raise UserError(f"{what}: expected True or False, got {value}")
    return bool(value)


def _find(name: str) -> EnvSpec:
    """The gymnasium registration of package.module:Id."""
    module, _, env_id = name.partition(":")
    if not env_id or not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"environment {name!r} is not of the form package.module:Id")
    look_here()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A missing import inside the user's module is the module's own error.
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise UserError(f"environment {name}: there is no module {error.name}") from error
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise UserError(
            f"environment {name}: importing {module} registers no gymnasium environment {env_id}"
        ) from error


def _make_scalar(spec: EnvSpec, options: dict[str, Any]) -> gymnasium.Env:
    # Whatever the user has wrapped around it stays; gymnasium's own TimeLimit would count the steps once more.
    return gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **options)


def _scales(space: Space) -> Float[np.ndarray, " O"]:
    """What each number of a flattened observation is divided by: 255 in images, else 1."""
    if isinstance(space, Dict):
        return np.concatenate([_scales(part) for part in space.values()])
    if isinstance(space, Tuple):
        return np.concatenate([_scales(part) for part in space.spaces])
    image = isinstance(space, Box) and space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all()
    return np.full(flatdim(space), 255 if image else 1, np.float32)


def _attribute(env: gymnasium.Env, name: str) -> Any:
    """An attribute of an environment or of what it wraps; None where there is none."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def _check_horizon(name: str, horizon: Any) -> None:
    if horizon is None:
        raise UserError(f"environment {name} has no horizon: give max_episode_steps to gymnasium.register")
    if not isinstance(horizon, int | np.integer) or horizon < 1:
        raise UserError(f"environment {name}: horizon {horizon!r}; expected a whole number of at least 1")


def _checked_vector(name: str, env: Any, spec: EnvSpec, num_envs: int) -> Any:
    """The user's own vector environment, once it is what the sampler takes it for."""
    if env.num_envs != num_envs:
        raise UserError(f"environment {name}: made with num_envs {num_envs}, it has {env.num_envs}; expected the same")
    space = env.single_observation_space
    if not isinstance(space, Box) or len(space.shape) != 1 or space.dtype != np.float32 or not space.shape[0]:
        raise UserError(
            f"environment {name}: a vector environment needs one-dimensional float32 observations, got {space}"
        )
    if _flat_actions(name, env.single_action_space) != env.single_action_space:
        raise UserError(
            f"environment {name}: a vector environment needs one-dimensional actions, float32 or counted from 0, got "
            f"{env.single_action_space}"
        )
    if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
        raise UserError(f"environment {name}: a vector environment needs metadata['autoreset_mode'] = DISABLED")
    if not hasattr(env, "horizon"):
        env.horizon = spec.max_episode_steps
    _check_horizon(name, env.horizon)
    if spec.max_episode_steps not in (None, env.horizon):
        raise UserError(
            f"environment {name}: registered with max_episode_steps {spec.max_episode_steps}, but its horizon is "
            f"{env.horizon}; expected the same"
        )
    return env


def _flat_actions(name: str, space: Space) -> Space:
    """An action space as the policies know it: a float32 vector, integers from 0, or a vector of those."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, MultiDiscrete) and space.nvec.size:
        return MultiDiscrete(space.nvec.ravel())
    if isinstance(space, MultiBinary) and (size := math.prod(space.shape)):
        return MultiDiscrete(np.full(size, 2))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating) and space.low.size:
        return Box(space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32), dtype=np.float32)
    raise UserError(
        f"environment {name}: actions must be Discrete, MultiDiscrete, MultiBinary or a Box of floats, got {space}"
    )
