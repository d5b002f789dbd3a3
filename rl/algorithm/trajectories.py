"""What the algorithm sees of episodes, whoever sampled them; `rl.sampling.episodes.Episodes` keeps this protocol."""

from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

Self = TypeVar("Self", bound="Trajectories")


@runtime_checkable
class Trajectories(Protocol):
    """Episodes of K tasks: T steps (the horizon), E episodes of a task, O observation size. All is zero after an
    episode's end.
    """

    @property
    def observations(self) -> Float[np.ndarray, "K T E O"]:
        """Before the action."""
        ...

    @property
    def actions(self) -> Shaped[np.ndarray, "K T E *A"]:
        """Floats, or integers without a last axis where they are discrete."""
        ...

    @property
    def rewards(self) -> Float[np.ndarray, "K T E"]:
        """Of each step."""
        ...

    @property
    def mask(self) -> Float[np.ndarray, "K T E"]:
        """1 at the steps that were taken."""
        ...

    def tasks(self: Self, start: int, stop: int) -> Self:
        """Those of tasks start to stop."""
        ...
