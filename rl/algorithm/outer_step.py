"""The outer step: how θ moves, given the outer objective of one batch of tasks.

To add one, write a class of the protocol `OuterStep`, as `rl/algorithm/trpo.py` and `ppo.py` do. It sees nothing of
tasks, ranks or chunks: all figures of an `OuterObjective` are means over all tasks.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class OuterObjective(Protocol):
    """The outer loss as a function of θ, through the inner update; π_old is fixed.

    Attributes:
        loss, gradient: at θ_old.
    """

    loss: float
    gradient: Float[Tensor, " P"]

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """At any θ."""
        ...

    def kl_hessian_product(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """∇² KL(π_θ ‖ π_old) v at θ_old."""
        ...

    def evaluate(self, theta: Float[Tensor, " P"]) -> tuple[float, float]:
        """The loss and KL(π_θ ‖ π_old) at any θ."""
        ...


@runtime_checkable
class OuterStep(Protocol):
    """A rule that moves θ.

    Attributes:
        name: of `--outer-step`; its metrics' tags begin with it.
        products: about how many products with the Jacobian and its transpose a step makes; it decides what is worth
            preparing for them.
    """

    name: str
    products: int

    def init(self, theta: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """The state before the first step, such as an optimiser's moments; empty where there is none. A run saves the
        state, whose names and shapes stay those of this one.
        """
        ...

    def step(
        self, theta: Float[Tensor, " P"], state: dict[str, Tensor], objective: OuterObjective
    ) -> tuple[Float[Tensor, " P"], dict[str, Tensor], dict[str, float]]:
        """The new θ (θ itself where no step is acceptable), the new state, and metrics under TensorBoard's tags.

        A run reads three of the metrics: `<name>/kl`, `<name>/step_size` (0 where θ stayed) and `<name>/gradient_norm`
        (NaN where the step met numbers that are not finite).
        """
        ...
