"""J by hand, for policies with a context while all tasks share θ (CAVIA): five times faster than graphs.

Axes: K tasks, N rows (distinct observations) of each, A action size, C context parameters, P weights.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.batch import Batch
from rl.algorithm.inner_loop import Update
from rl.algorithm.jacobian import Vector, at_outputs, hessian_product, unflatten
from rl.algorithm.linearization import Linearization
from rl.policies import MLPPolicy
from rl.policies.heads import MIN_LOG_STD

Tangents = Sequence[Tensor]  # of the distribution's parameters


class NetworkJacobian:
    """The `Jacobian` of a context policy that has not adapted: J of the network itself at φ = 0, or at another context.

    Args:
        context: φ.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        observations: Float[Tensor, "K N O"],
        context: Float[Tensor, "K C"] | None = None,
    ):
        self.policy, self.size = policy, theta.numel()
        params = unflatten(policy, theta.detach())
        if context is None:
            context = theta.new_zeros(len(observations), policy.architecture.num_context_params)
        self.network = Linearization(policy, params, context, observations)
        self.distribution = self.network.distribution
        self.inner_losses = theta.new_zeros(len(observations))
        self.sigma = FreeSigma(params)
        self.nbytes = self.network.nbytes()

    def jvp(self, vector: Vector, d_context: Float[Tensor, "K C"] | None = None) -> Tangents:
        """As `Jacobian.jvp`, where φ has a tangent, too."""
        tangent = unflatten(self.policy, vector)
        return self.sigma.tangents(self.network.forward_tangent(tangent, d_context)[0], tangent)

    def vjp(self, cotangents: Tangents) -> Vector:
        """As `Jacobian.vjp`."""
        result = cotangents[0].new_zeros(self.size)
        self.add_vjp(cotangents, unflatten(self.policy, result))
        return result

    def add_vjp(self, cotangents: Tangents, gradient: dict[str, Tensor]) -> Float[Tensor, "K C"]:
        """Add Jᵀu to a dict as θ; returns the cotangent of φ."""
        context = self.network.backward(cotangents[0], gradient)
        self.sigma.add(gradient, cotangents)
        return context


class ContextJacobian:
    """The `Jacobian` of a context policy whose parts all declare their derivatives, after one or more inner updates.

    With φᵢ₊₁ = φᵢ − α ∂Lᵢ/∂φ (θ, φᵢ), both Dᵢ = dφᵢ/dθ and its transpose are one pass of the R operator over the inner
    loss a update: the tangent of ∂Lᵢ/∂φ where θ has the tangent v and φ the tangent Dᵢv; and, backwards, that of ∂Lᵢ/∂θ
    and ∂Lᵢ/∂φ where φ has the tangent s. The inner objective enters at the network's outputs alone.

    Args:
        before: the episodes of each update.
        observations: those after the last one.
        products: how many products will follow a first one with Jᵀ. A single task's D is computed as a matrix where
            that is cheaper.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        before: Sequence[Batch],
        observations: Float[Tensor, "K N O"],
        update: Update,
        products: int = 0,
    ):
        self.policy = policy
        params = unflatten(policy, theta.detach())
        context = theta.new_zeros(len(observations), policy.architecture.num_context_params)
        self.updates: list[_Update] = []
        for batch in before:
            made = _Update(policy, params, context, batch, update)
            context = context + made.change
            self.updates.append(made)
        self.inner_losses = self.updates[0].losses
        if update.first_order:
            self.updates = []
        self.outer = NetworkJacobian(policy, theta, observations, context)
        self.distribution = self.outer.distribution
        self.matrix = None
        if self.updates and context.shape[0] == 1 and context.shape[1] < products:
            self.matrix = self._context_matrix(theta)
            self.updates = []
        self.nbytes = self.outer.nbytes + sum(made.inner.nbytes() for made in self.updates)
        if self.matrix is not None:
            self.nbytes += self.matrix.nbytes

    def jvp(self, vector: Vector) -> Tangents:
        """As `Jacobian.jvp`."""
        return self.outer.jvp(vector, self._context_jvp(vector))

    def vjp(self, cotangents: Tangents) -> Vector:
        """As `Jacobian.vjp`."""
        result = cotangents[0].new_zeros(self.outer.size)
        gradient = unflatten(self.policy, result)
        context = self.outer.add_vjp(cotangents, gradient)
        if self.matrix is not None:
            result.add_(context[0] @ self.matrix)
        else:
            self._context_vjp(context, gradient)
        return result

    def _context_jvp(self, vector: Vector) -> Float[Tensor, "K C"] | None:
        """D v"""
        if self.matrix is not None:
            return (self.matrix @ vector)[None]
        tangent, d_context = unflatten(self.policy, vector), None
        for made in self.updates:
            d_change = made.jvp(tangent, d_context)
            d_context = d_change if d_context is None else d_context + d_change
        return d_context

    def _context_vjp(self, cotangent: Float[Tensor, "K C"], gradient: dict[str, Tensor]) -> None:
        """Add Dᵀs to a dict as θ."""
        for made in reversed(self.updates):
            cotangent = cotangent + made.vjp(cotangent, gradient)

    def _context_matrix(self, theta: Vector) -> Float[Tensor, "C P"]:
        """D of a single task, as a matrix."""
        size = self.policy.architecture.num_context_params
        rows = theta.new_zeros(size, len(theta))
        for row, direction in zip(rows, torch.eye(size, dtype=theta.dtype, device=theta.device), strict=True):
            self._context_vjp(direction[None], unflatten(self.policy, row))
        return rows


class _Update:
    """One inner update, linearized.

    Attributes:
        change: −α ∂L/∂φ.
        losses: L of each task.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        params: dict[str, Tensor],
        context: Float[Tensor, "K C"],
        batch: Batch,
        update: Update,
    ):
        self.learning_rate, self.sigma = update.learning_rate, FreeSigma(params)
        second_order = not update.first_order
        self.inner = Linearization(policy, params, context, batch.observations, second_order)
        self.losses, self.leaves, self.gradient = at_outputs(
            self.inner.distribution, lambda distribution: update.objective(distribution, batch)
        )
        self.change = -self.learning_rate * self.inner.backward(self.gradient[0].detach(), None)

    def jvp(self, tangent: dict[str, Tensor], d_context: Float[Tensor, "K C"] | None) -> Float[Tensor, "K C"]:
        """The tangent of the change."""
        d_outputs, flow = self.inner.forward_tangent(tangent, d_context)
        d_gradient = hessian_product(self.gradient, self.leaves, self.sigma.tangents(d_outputs, tangent))
        return -self.learning_rate * self.inner.backward_tangent(d_gradient[0], flow, None)

    def vjp(self, cotangent: Float[Tensor, "K C"], gradient: dict[str, Tensor]) -> Float[Tensor, "K C"]:
        """The cotangent of φ from that of the change; θ's is added to the gradient."""
        d_outputs, flow = self.inner.forward_tangent(None, -self.learning_rate * cotangent)
        d_gradient = hessian_product(self.gradient, self.leaves, self.sigma.tangents(d_outputs, None))
        result = self.inner.backward_tangent(d_gradient[0], flow, gradient)
        self.sigma.add(gradient, d_gradient)
        return result


class FreeSigma:
    """The normal's log-standard-deviation as a parameter of the distribution: θ's own where it is above the least."""

    def __init__(self, params: dict[str, Tensor]):
        sigma = params.get("sigma")
        self.free = None if sigma is None else (sigma >= MIN_LOG_STD).to(sigma.dtype)

    def tangents(self, d_outputs: Tensor, tangent: dict[str, Tensor] | None) -> Tangents:
        """Tangents of the distribution's parameters from those of the network's outputs and of θ (None for zero)."""
        if self.free is None:
            return (d_outputs,)
        d_sigma = torch.zeros_like(self.free) if tangent is None else self.free * tangent["sigma"]
        return d_outputs, d_sigma.reshape(1, 1, -1)

    def add(self, gradient: dict[str, Tensor], cotangents: Tangents) -> None:
        """Add σ's share of a gradient."""
        if self.free is not None:
            gradient["sigma"].add_(self.free * cotangents[1].reshape(-1))
