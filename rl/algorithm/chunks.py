"""A chunk: a few tasks that are differentiated together. Losses are sums over its tasks and its terms."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.batch import prepare_updates
from rl.algorithm.jacobian import Vector
from rl.algorithm.options import Options
from rl.algorithm.terms import Adapted, Budget, Term, Unadapted
from rl.algorithm.trajectories import Trajectories
from rl.policies import MLPPolicy
from rl.sums import ordered_sum


class Chunk:
    """The meta-objective on a few tasks. π_old, the policy that sampled, is fixed when the chunk is made.

    Args:
        theta: θ_old.
        episodes: of the same tasks, after 0, 1, 2, … inner updates.
        products: as of `rl.algorithm.outer_step.OuterStep`.
        budget: of what may be kept for curvature products; beyond it, each product computes it again.
        credit: each task's standardised post-update return, for `--exploration-credit`; default: 0.
        dtype, device: of all tensors.

    Attributes:
        terms: the surrogate loss after the updates, and what credits the episodes before them where an option asks.
        loss, gradient: at θ_old.
        inner_losses: of the first inner update, [K].
        ridge_retries: how often a baseline's ridge had to grow.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        episodes: Sequence[Trajectories],
        options: Options,
        products: int = 0,
        budget: Budget | None = None,
        credit: Float[Tensor, " K"] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.num_tasks = episodes[0].mask.shape[0]
        (*before, after), self.ridge_retries = prepare_updates(
            episodes, options.gamma, options.gae_lambda, dtype, device
        )
        kept = (options, products, budget or Budget())
        self.terms: list[Term] = [Adapted(policy, theta, before, after, *kept)]
        if options.credits_exploration:
            credit = theta.new_zeros(self.num_tasks) if credit is None else credit
            self.terms.append(Unadapted(policy, theta, before[0], credit, *kept))
        self.inner_losses = self.terms[0].inner_losses
        self.loss, self.gradient = self._sum(lambda term: (term.loss, term.gradient))

    def loss_and_gradient(self, theta: Vector) -> tuple[Float[Tensor, ""], Vector]:
        """The loss and its gradient at any θ."""
        loss, gradient = self._sum(lambda term: term.loss_and_gradient(theta))
        return loss, gradient

    def kl_hessian_product(self, vector: Vector) -> Vector:
        """The Hessian of the divergence at θ_old, times v."""
        return self._sum(lambda term: (term.kl_hessian_product(vector),))[0]

    def evaluate(self, theta: Vector) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss and KL(π_θ ‖ π_old) at any θ."""
        loss, divergence = self._sum(lambda term: term.evaluate(theta))
        return loss, divergence

    def _sum(self, of: Callable[[Term], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(map(ordered_sum, zip(*map(of, self.terms), strict=True)))
