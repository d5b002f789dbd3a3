"""A chunk: a few tasks that are differentiated together. Losses are sums over its tasks."""

import threading
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm import inner_loop
from rl.algorithm.batch import Batch, prepare
from rl.algorithm.context_jacobian import ContextJacobian
from rl.algorithm.inner_objective import INNER_OBJECTIVES
from rl.algorithm.jacobian import GraphJacobian, Jacobian, Vector, at_outputs, hessian_product, unflatten
from rl.algorithm.options import Options
from rl.algorithm.trajectories import Trajectories
from rl.policies import MLPPolicy
from rl.policies.heads import Distribution


class Budget:
    """Memory shared by all chunks.

    Args:
        size: bytes.
    """

    def __init__(self, size: float = float("inf")):
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserve `size` bytes if so many are left; returns whether they were."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class Curvature(NamedTuple):
    """What curvature products need: J, and the divergence from θ_old as a function of the distribution's parameters."""

    jacobian: Jacobian
    leaves: list[Tensor]
    gradient: tuple[Tensor, ...]

    def product(self, vector: Vector) -> Vector:
        """Jᵀ M J v with M the Hessian of the divergence at the outputs: at θ_old, where the divergence has no gradient,
        this Gauss-Newton product is exact.
        """
        return self.jacobian.vjp(hessian_product(self.gradient, self.leaves, self.jacobian.jvp(vector)))


class Chunk:
    """The meta-objective on a few tasks. π_old, the policy that sampled, is fixed when the chunk is made.

    Args:
        theta: θ_old.
        before, after: of the same tasks before and after the inner update.
        products: as of `rl.algorithm.outer_step.OuterStep`.
        budget: of what may be kept for curvature products; beyond it, each product computes it again.
        dtype, device: of all tensors.

    Attributes:
        loss, gradient: the surrogate loss −Σ w A π/π_old at θ_old, and its gradient.
        inner_losses: of the inner update, [K].
        ridge_retries: how often a baseline's ridge had to grow.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        before: Trajectories,
        after: Trajectories,
        options: Options,
        products: int = 0,
        budget: Budget | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.policy, self.theta, self.options, self.products = policy, theta, options, products
        self.inner_objective = INNER_OBJECTIVES[options.inner_objective]
        self.num_tasks = before.mask.shape[0]
        (self.before, self.after), self.ridge_retries = prepare(
            before, [before, after], options.gamma, options.gae_lambda, dtype, device
        )
        self.observation_weights = self.after.observation_weights
        jacobian = self._jacobian(theta, self.before, self.after)
        self.old = jacobian.distribution
        self.old_log_prob = self.after.log_prob(self.old)
        self.inner_losses = jacobian.inner_losses
        self.loss, self.gradient = self._loss_and_gradient(jacobian)
        self.curvature = self._kept(jacobian, budget or Budget())

    def loss_and_gradient(self, theta: Vector) -> tuple[Float[Tensor, ""], Vector]:
        """The surrogate loss and its gradient at any θ."""
        return self._loss_and_gradient(self._jacobian(theta, self.before, self.after))

    def kl_hessian_product(self, vector: Vector) -> Vector:
        """The Hessian of the summed KL divergence at θ_old, times v."""
        return (self.curvature or self._curvature()).product(vector)

    def evaluate(self, theta: Vector) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The surrogate loss and KL(π_θ ‖ π_old) at any θ."""
        adapted, _ = self.adapt(unflatten(self.policy, theta))
        with torch.no_grad():
            distribution = self.policy(adapted.params, adapted.context, self.after.observations)
            return self.surrogate(distribution), (self.observation_weights * distribution.kl(self.old)).sum()

    def adapt(self, params: dict[str, Tensor]) -> tuple[inner_loop.Adapted, Float[Tensor, " K"]]:
        """The inner update from φ = 0 on the pre-update episodes, and its losses."""
        start = inner_loop.unadapted(self.policy, params, self.num_tasks)
        return inner_loop.inner_step(self.policy, start, self.before, self.options.fast_lr, self.inner_objective)

    def surrogate(self, distribution: Distribution) -> Float[Tensor, ""]:
        """−Σ w A π(a|s)/π_old(a|s)."""
        ratio = torch.exp(self.after.log_prob(distribution) - self.old_log_prob)
        return -(self.after.weights * self.after.advantages * ratio).sum()

    def _loss_and_gradient(self, jacobian: Jacobian) -> tuple[Float[Tensor, ""], Vector]:
        loss, _, cotangents = at_outputs(jacobian.distribution, lambda outputs: self.surrogate(outputs)[None])
        return loss[0], jacobian.vjp([cotangent.detach() for cotangent in cotangents])

    def _kept(self, jacobian: Jacobian, budget: Budget) -> Curvature | None:
        """The curvature, if there is room for it."""
        if not self.products:
            return None
        if self.options.fvp_subsample < 1:
            curvature = self._curvature()
            return curvature if budget.take(curvature.jacobian.nbytes) else None
        return self._curvature(jacobian) if budget.take(jacobian.nbytes) else None

    def _curvature(self, jacobian: Jacobian | None = None) -> Curvature:
        """`Curvature` on the given Jacobian, or on a new one on the share of steps that products use."""
        after = self.after
        if jacobian is None:
            fraction = self.options.fvp_subsample
            after = self.after.subsample(fraction)
            jacobian = self._jacobian(self.theta, self.before.subsample(fraction), after)
        weights = after.observation_weights
        old = jacobian.distribution
        _, leaves, gradient = at_outputs(old, lambda distribution: (weights * distribution.kl(old)).sum(-1))
        return Curvature(jacobian, leaves, gradient)

    def _jacobian(self, theta: Vector, before: Batch, after: Batch) -> Jacobian:
        options = self.options
        arguments = (self.policy, theta, before, after, options.fast_lr, options.first_order, self.inner_objective)
        if self.policy.architecture.num_context_params and self.policy.differentiated_by_hand:
            return ContextJacobian(*arguments, products=self.products)
        return GraphJacobian(*arguments)
