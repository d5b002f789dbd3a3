"""Where the steps of episodes that run side by side are kept."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from rl.envs.base import TaskVectorEnv, conforming
from rl.sampling.episodes import Episodes


class Recorder:
    """The arrays [T, N, ...] that become `Episodes`."""

    def __init__(self, env: TaskVectorEnv):
        steps = (env.horizon, env.num_envs)
        action_space: Any = env.single_action_space  # gymnasium says nothing of its shape
        self.observations = np.zeros((*steps, env.single_observation_space.shape[0]), np.float32)
        self.actions = np.zeros((*steps, *action_space.shape), action_space.dtype)
        self.rewards = np.zeros(steps)
        self.mask = np.zeros(steps, np.float32)
        self.infos: dict[str, np.ndarray] = {}

    def observed(self, what: str, observations: Any) -> Float32[np.ndarray, "N O"]:
        """What the environment showed, in the type that policies take.

        Raises:
            UserError: another shape or kind of type than declared.
        """
        return conforming(what, observations, self.observations.shape[1:], np.float32).astype(np.float32, copy=False)

    def add_infos(self, t: int, infos: dict[str, Any], running: Bool[np.ndarray, " N"]) -> None:
        """Keep what the environment reports of a step, for the episodes that still run."""
        for name, given in infos.items():
            values = _numbers(given)
            if values is None or values.shape != running.shape:
                continue
            if (kept := self.infos.get(name)) is None:
                kept = np.zeros(self.mask.shape, values.dtype)
            self.infos[name] = kept.astype(np.result_type(kept, values), copy=False)
            self.infos[name][t, running] = values[running]

    def episodes(self, shape: tuple[int, int]) -> Episodes:
        """The episodes of `shape`, K tasks of E each; zero after an episode's end."""
        self.observations *= self.mask[..., None]
        self.rewards *= self.mask
        trailing = (1,) * (self.actions.ndim - 2)
        self.actions *= self.mask.reshape(self.mask.shape + trailing).astype(self.actions.dtype)
        return Episodes(
            _by_task(self.observations, shape),
            _by_task(self.actions, shape),
            _by_task(self.rewards, shape),
            _by_task(self.mask, shape),
            {name: _by_task(values, shape) for name, values in self.infos.items()},
        )


def _numbers(given: Any) -> Shaped[np.ndarray, "..."] | None:
    """An info as an array of numbers; None where it is something else."""
    try:
        found = np.asarray(given)
        # Gymnasium collects NumPy's truth values, among others, in an array of objects.
        found = np.array(found.tolist()) if found.dtype == object else found
    except ValueError:  # rows of different lengths
        return None
    return found if found.dtype.kind in "biuf" else None


def _by_task(array: Shaped[np.ndarray, "T N *rest"], shape: tuple[int, int]) -> Shaped[np.ndarray, "K T E *rest"]:
    """N = K·E episodes as K tasks of E each, contiguous."""
    split = array.reshape(array.shape[0], *shape, *array.shape[2:])
    return np.ascontiguousarray(np.moveaxis(split, 1, 0))
