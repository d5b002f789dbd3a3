"""Episodes of a group of tasks: immutable arrays with a mask."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Num, Shaped


@dataclass(frozen=True)
class Episodes:
    """The episodes that some tasks were acted in after some number of updates.

    Everything is zero after an episode's end.

    Attributes:
        observations: before the action; float32 where they were sampled.
        actions: vectors of float32, or int64 where they are discrete.
        rewards: float64.
        mask: 1 at the steps that were taken.
        infos: the environment's `infos` of each step, zero where it gave none.
    """

    observations: Float[np.ndarray, "K T E O"]
    actions: Num[np.ndarray, "K T E *A"]
    rewards: Float[np.ndarray, "K T E"]
    mask: Float[np.ndarray, "K T E"]
    infos: dict[str, Shaped[np.ndarray, "K T E"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.mask.shape
        if len(shape) != 3 or self.rewards.shape != shape or self.observations.shape[:3] != shape:
            raise ValueError(
                f"Episodes: observations {self.observations.shape}, rewards {self.rewards.shape} and mask {shape} "
                "do not share [K, T, E]"
            )

    @property
    def returns(self) -> Float[np.ndarray, "K E"]:
        """Undiscounted returns."""
        return self.rewards.sum(axis=1)

    @property
    def steps(self) -> int:
        """The number of environment steps taken, over all episodes."""
        return int(self.mask.sum())

    def tasks(self, start: int, stop: int) -> "Episodes":
        """The episodes of tasks start to stop, without copying."""
        infos = {name: values[start:stop] for name, values in self.infos.items()}
        observations, actions, rewards, mask = (array[start:stop] for array in self.arrays())
        return Episodes(observations, actions, rewards, mask, infos)

    def first(self, count: int) -> "Episodes":
        """The first episodes of each task, without copying."""
        infos = {name: values[:, :, :count] for name, values in self.infos.items()}
        observations, actions, rewards, mask = (array[:, :, :count] for array in self.arrays())
        return Episodes(observations, actions, rewards, mask, infos)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The arrays that every environment has, in the order of the fields."""
        return self.observations, self.actions, self.rewards, self.mask

    @staticmethod
    def alike(parts: Sequence["Episodes"]) -> list["Episodes"]:
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
    def concatenate(parts: Sequence["Episodes"]) -> "Episodes":
        """Join groups of tasks along K."""
        parts = Episodes.alike(parts)
        infos = {name: np.concatenate([part.infos[name] for part in parts]) for name in parts[0].infos}
        together = (np.concatenate(same) for same in zip(*(part.arrays() for part in parts), strict=True))
        observations, actions, rewards, mask = together
        return Episodes(observations, actions, rewards, mask, infos)
