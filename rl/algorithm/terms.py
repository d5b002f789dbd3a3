"""The terms of the outer objective: losses of a policy's distribution at some episodes, as functions of θ.

`Adapted` is the published objective: the policy after the inner updates, at the episodes that it sampled. `Unadapted`
is what credits exploration: the policy before any update (φ = 0), at the pre-update episodes. π_old, the policy that
sampled, is fixed when a term is made. All figures are sums over the tasks of a chunk.
"""

import abc
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm import inner_loop
from rl.algorithm.batch import Batch
from rl.algorithm.context_jacobian import ContextJacobian, NetworkJacobian
from rl.algorithm.inner_objective import INNER_OBJECTIVES, score
from rl.algorithm.jacobian import GraphJacobian, Jacobian, Vector, at_outputs, hessian_product, unflatten
from rl.algorithm.options import Options
from rl.policies import MLPPolicy
from rl.policies.heads import Distribution


class Budget:
    """Memory shared by all terms.

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


class Term(abc.ABC):
    """One term. A kind of term says how the distribution depends on θ, and what its loss is.

    Args:
        theta: θ_old.
        batch: the episodes at which the loss is taken.
        products: as of `rl.algorithm.outer_step.OuterStep`.
        budget: of what may be kept for curvature products; beyond it, each product computes it again.

    Attributes:
        loss, gradient: at θ_old.
        inner_losses: of the first inner update, [K]; zero where there is none.
        kl_weight: how many times the term's divergence counts.
    """

    kl_weight: float = 1.0

    def __init__(self, policy: MLPPolicy, theta: Vector, batch: Batch, options: Options, products: int, budget: Budget):
        self.policy, self.theta, self.batch, self.options, self.products = policy, theta, batch, options, products
        self.weights = batch.observation_weights
        jacobian = self.jacobian(theta, 1.0, products if options.fvp_subsample >= 1 else 0)
        self.old = jacobian.distribution
        self.old_log_prob = batch.log_prob(self.old)
        self.inner_losses = jacobian.inner_losses
        self.loss, self.gradient = self._loss_and_gradient(jacobian)
        self.curvature = self._kept(jacobian, budget)

    @abc.abstractmethod
    def jacobian(self, theta: Vector, fraction: float, products: int = 0) -> Jacobian:
        """J at θ, at this fraction of the steps, and how many products with it will follow a first one with Jᵀ."""

    @abc.abstractmethod
    def distribution(self, theta: Vector) -> Distribution:
        """At θ, outside of any graph."""

    @abc.abstractmethod
    def loss_of(self, distribution: Distribution) -> Float[Tensor, ""]:
        """The loss of a distribution at the episodes."""

    def loss_and_gradient(self, theta: Vector) -> tuple[Float[Tensor, ""], Vector]:
        """At any θ."""
        return self._loss_and_gradient(self.jacobian(theta, 1.0))

    def kl_hessian_product(self, vector: Vector) -> Vector:
        """The Hessian of the divergence at θ_old, times v."""
        return (self.curvature or self._curvature()).product(vector)

    def evaluate(self, theta: Vector) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss and KL(π_θ ‖ π_old) at any θ."""
        distribution = self.distribution(theta)
        with torch.no_grad():
            return self.loss_of(distribution), self.kl_weight * (self.weights * distribution.kl(self.old)).sum()

    def surrogate(self, distribution: Distribution, advantages: Float[Tensor, "K N"]) -> Float[Tensor, ""]:
        """−Σ w A ρ,  ρ = π(a|s)/π_old(a|s); clipped −Σ w min(A ρ, A clip(ρ, 1 − ε, 1 + ε)) (PPO, arXiv 1707.06347,
        equation 7).
        """
        ratio = torch.exp(self.batch.log_prob(distribution) - self.old_log_prob)
        gain, epsilon = advantages * ratio, self.options.clip_eps
        if epsilon:
            gain = torch.minimum(gain, advantages * ratio.clamp(1 - epsilon, 1 + epsilon))
        return -(self.batch.weights * gain).sum()

    def _loss_and_gradient(self, jacobian: Jacobian) -> tuple[Float[Tensor, ""], Vector]:
        loss, _, cotangents = at_outputs(jacobian.distribution, lambda outputs: self.loss_of(outputs)[None])
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
        """`Curvature` on the given Jacobian, or on a new one on the share of steps that products use. The new one is
        the same whether it is kept or made for one product: memory decides no bytes.
        """
        weights = self.weights
        if jacobian is None:
            fraction = self.options.fvp_subsample
            jacobian = self.jacobian(self.theta, fraction, max(self.products, 1))
            weights = self.batch.subsample(fraction).observation_weights
        old, weights = jacobian.distribution, self.kl_weight * weights
        _, leaves, gradient = at_outputs(old, lambda distribution: (weights * distribution.kl(old)).sum(-1))
        return Curvature(jacobian, leaves, gradient)


class Adapted(Term):
    """The surrogate loss of the episodes after the inner updates, through them.

    Args:
        before: the episodes of each update.
        after: those sampled after the last one.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        before: Sequence[Batch],
        after: Batch,
        options: Options,
        products: int,
        budget: Budget,
    ):
        objective = INNER_OBJECTIVES[options.inner_objective]
        self.update = inner_loop.Update(options.fast_lr, options.first_order, objective)
        self.before = list(before)
        if objective is not score:  # which does not look at π_sampled
            self.before = inner_loop.with_sampled(policy, unflatten(policy, theta), self.before, self.update)
        super().__init__(policy, theta, after, options, products, budget)

    def jacobian(self, theta: Vector, fraction: float, products: int = 0) -> Jacobian:
        """As `Term.jacobian`."""
        policy, before = self.policy, [batch.subsample(fraction) for batch in self.before]
        observations = self.batch.subsample(fraction).observations
        if policy.architecture.num_context_params and policy.differentiated_by_hand:
            return ContextJacobian(policy, theta, before, observations, self.update, products)

        def forward(params: dict[str, Tensor]) -> tuple[Distribution, Tensor]:
            (*_, adapted), losses = inner_loop.adapt(policy, params, before, self.update, create_graph=True)
            return policy(*adapted, observations), losses

        return GraphJacobian(policy, theta, forward, products)

    def distribution(self, theta: Vector) -> Distribution:
        """As `Term.distribution`."""
        (*_, adapted), _ = inner_loop.adapt(self.policy, unflatten(self.policy, theta), self.before, self.update)
        with torch.no_grad():
            return self.policy(*adapted, self.batch.observations)

    def loss_of(self, distribution: Distribution) -> Float[Tensor, ""]:
        """The surrogate loss."""
        return self.surrogate(distribution, self.batch.advantages)


class Unadapted(Term):
    """Losses of the pre-update policy at the episodes before the first update, which credit how it explores:

        −Σ w (w₁ A + w₂ R′) ρ − β Σ w H(π) + η Σ w KL(π_old ‖ π)

    w₁ is `--pre-update-return` with the inner loss's advantages A; w₂ `--exploration-credit` with each task's
    standardised post-update return R′ (E-MAML, arXiv 1803.01118, section 3); β `--entropy-bonus`; η
    `--inner-kl-penalty` (ProMP, arXiv 1810.06784, equation 13). The divergence counts `--pre-update-kl` times.

    Args:
        credit: R′ [K].
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        batch: Batch,
        credit: Float[Tensor, " K"],
        options: Options,
        products: int,
        budget: Budget,
    ):
        credit = credit.to(batch.advantages)[:, None]
        self.kl_weight = options.pre_update_kl
        self.gains = options.pre_update_return * batch.advantages + options.exploration_credit * credit
        super().__init__(policy, theta, batch, options, products, budget)

    def jacobian(self, theta: Vector, fraction: float, products: int = 0) -> Jacobian:
        """As `Term.jacobian`."""
        policy, batch = self.policy, self.batch.subsample(fraction)
        if policy.architecture.num_context_params and policy.differentiated_by_hand:
            return NetworkJacobian(policy, theta, batch.observations)

        def forward(params: dict[str, Tensor]) -> tuple[Distribution, Tensor]:
            start = inner_loop.unadapted(policy, params, len(batch.weights))
            return policy(*start, batch.observations), theta.new_zeros(len(batch.weights))

        return GraphJacobian(policy, theta, forward, products)

    def distribution(self, theta: Vector) -> Distribution:
        """As `Term.distribution`."""
        start = inner_loop.unadapted(self.policy, unflatten(self.policy, theta), len(self.batch.weights))
        with torch.no_grad():
            return self.policy(*start, self.batch.observations)

    def loss_of(self, distribution: Distribution) -> Float[Tensor, ""]:
        """As above."""
        entropy = (self.weights * distribution.entropy()).sum()
        penalty = (self.weights * self.old.kl(distribution)).sum()
        shaped = self.options.inner_kl_penalty * penalty - self.options.entropy_bonus * entropy
        return self.surrogate(distribution, self.gains) + shaped
