"""The outer step: how θ moves, given the outer objective of one batch of tasks.

To add one, write a class of the protocol `OuterStep`; `rl/algorithm/trpo.py` is the one there is. It sees nothing of
tasks, ranks or chunks: all figures of an `OuterObjective` are means over all tasks.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class OuterObjective(Protocol):
    """The surrogate loss of the post-update episodes as a function of θ, through the inner update; π_old is fixed.

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
        """The surrogate loss and KL(π_θ ‖ π_old) at any θ."""
        ...


@runtime_checkable
class OuterStep(Protocol):
    """A rule that moves θ.

    Attributes:
        products: about how many products with the Jacobian and its transpose a step makes; it decides what is worth
            preparing for them.
    """

    products: int

    def init(self, theta: Float[Tensor, " P"]) -> Any:
        """The state before the first step, such as an optimiser's moments; None where there is none."""
        ...

    def step(
        self, theta: Float[Tensor, " P"], state: Any, objective: OuterObjective
    ) -> tuple[Float[Tensor, " P"], Any, dict[str, float]]:
        """The new θ (θ itself where no step is acceptable), the new state, and metrics under TensorBoard's tags.

        A run reads three of the metrics: `trpo/kl`, `trpo/step_size` (0 where θ stayed) and `trpo/gradient_norm` (NaN
        where the step met numbers that are not finite).
        """
        ...
