"""Episodes of a group of tasks: immutable arrays with a mask."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Episodes:
    """The episodes of one phase.

    Axes: K tasks, T steps (the horizon), E episodes of a task, O observation size, A action size. Everything is zero
    after an episode's end.

    Attributes:
        observations: float32 [K, T, E, O], before the action.
        actions: float32 [K, T, E, A], or int64 [K, T, E] where they are discrete.
        rewards: float64 [K, T, E]
        mask: float32 [K, T, E], 1 at the steps that were taken.
        infos: the environment's `infos` of each step: name -> [K, T, E], zero where it gave none.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    mask: np.ndarray
    infos: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        shape = self.mask.shape
        if len(shape) != 3 or self.rewards.shape != shape or self.observations.shape[:3] != shape:
            raise ValueError(
                f"Episodes: observations {self.observations.shape}, rewards {self.rewards.shape} and mask {shape} "
                "do not share [K, T, E]"
            )

    @property
    def returns(self):
        """Undiscounted returns [K, E]."""
        return self.rewards.sum(axis=1)

    @property
    def steps(self):
        """The number of environment steps taken, over all episodes."""
        return int(self.mask.sum())

    def tasks(self, start, stop):
        """The episodes of tasks start to stop, without copying."""
        infos = {name: values[start:stop] for name, values in self.infos.items()}
        return Episodes(*(array[start:stop] for array in self.arrays()), infos)

    def first(self, count):
        """The first episodes of each task, without copying."""
        infos = {name: values[:, :, :count] for name, values in self.infos.items()}
        return Episodes(*(array[:, :, :count] for array in self.arrays()), infos)

    def arrays(self):
        """The arrays that every environment has, in the order of the fields."""
        return self.observations, self.actions, self.rewards, self.mask

    @staticmethod
    def alike(parts):
        """The same episodes with the same names in all `infos`, zero where the environment gave none."""
        dtypes = {name: values.dtype for part in parts for name, values in part.infos.items()}
        return [
            replace(
                part,
                infos={name: part.infos.get(name, np.zeros(part.mask.shape, dtype)) for name, dtype in dtypes.items()},
            )
            for part in parts
        ]

    @staticmethod
    def concatenate(parts):
        """Join groups of tasks along K."""
        parts = Episodes.alike(parts)
        infos = {name: np.concatenate([part.infos[name] for part in parts]) for name in parts[0].infos}
        arrays = (np.concatenate(same) for same in zip(*(part.arrays() for part in parts), strict=True))
        return Episodes(*arrays, infos)
