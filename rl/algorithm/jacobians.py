"""The policy's distribution after the inner update as a function of θ, linearized at one point.

    J = d(distribution parameters)/dθ, through the adapted context or weights

Both classes multiply by J and Jᵀ on what they keep. `GraphJacobian` leaves the derivatives to automatic differentiation
and serves every policy; `ContextJacobian` is for policies that adapt a context alone while all tasks share θ (CAVIA),
and multiplies by hand-written derivatives.

Axes: K tasks, N rows (distinct observations) of each, A action size, C context parameters, P weights.
"""

import torch

from rl.algorithm import inner_loop
from rl.algorithm.linearization import Linearization
from rl.policies.heads import MIN_LOG_STD


class GraphJacobian:
    """J on kept graphs.

    Args:
        policy: `MLPPolicy`.
        vector: θ, flat [P].
        before, after: `Batch`es of the same tasks before and after the inner update.
        learning_rate: of the inner update.
        first_order: take the inner gradient as a constant.

    Attributes:
        distribution: at `after.observations`, outside of any graph.
        inner_losses: [K]
        nbytes: bytes kept.
    """

    def __init__(self, policy, vector, before, after, learning_rate, first_order):
        self.vector = vector.detach().clone().requires_grad_()
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            start = inner_loop.unadapted(policy, unflatten(policy, self.vector), before.weights.shape[0])
            adapted, self.inner_losses = inner_loop.inner_step(
                policy, start, before, learning_rate, create_graph=not first_order
            )
            self.outputs = policy(adapted.params, adapted.context, after.observations)
            # A dummy cotangent w makes the reverse-mode product Jᵀw a function of w whose own reverse mode is J v: both
            # directions then run on kept graphs, and nothing of the primal computation is ever repeated.
            self.cotangents = [torch.zeros_like(output).requires_grad_() for output in self.outputs]
            (self.pullback,) = torch.autograd.grad(self.outputs, self.vector, self.cotangents, create_graph=True)
        self.distribution = self.outputs.detach()
        self.nbytes = sum(kept.values())

    def jvp(self, vector):
        """J v: tangents of the distribution's parameters, from v [P]."""
        return torch.autograd.grad(self.pullback, self.cotangents, vector, retain_graph=True)

    def vjp(self, cotangents):
        """Jᵀu [P] from cotangents of the distribution's parameters."""
        return torch.autograd.grad(self.outputs, self.vector, cotangents, retain_graph=True)[0]


class ContextJacobian:
    """J by hand, for a policy that adapts its context.

    With φ′(θ) = −α ∂L/∂φ (θ, 0), both D = dφ′/dθ and its transpose are one pass of the R operator over the inner loss
    L: D v is the tangent of ∂L/∂φ where θ has the tangent v; Dᵀs is that of ∂L/∂θ where φ has the tangent s. Arguments
    and attributes are those of `GraphJacobian`.

    Args:
        products: how many products with J and Jᵀ will follow. A single task's D is computed as a matrix where that is
            cheaper.
    """

    def __init__(self, policy, vector, before, after, learning_rate, first_order, products=0):
        self.policy = policy
        self.learning_rate = learning_rate
        self.size = vector.numel()
        params = unflatten(policy, vector.detach())
        context = policy.initial_context(before.weights.shape[0], vector)
        inner = Linearization(policy, params, context, before.observations, second_order=True)
        losses, self.inner_leaves, self.inner_gradient = at_outputs(
            inner.distribution, lambda distribution: inner_loop.reinforce(distribution, before)
        )
        self.inner_losses = losses
        context = -learning_rate * inner.backward(self.inner_gradient[0].detach(), None)
        self.outer = Linearization(policy, params, context, after.observations)
        self.distribution = self.outer.distribution
        self.free_sigma = (params["sigma"] >= MIN_LOG_STD).to(vector.dtype) if "sigma" in params else None
        self.inner = None if first_order else inner
        self.matrix = None
        if self.inner is not None and context.shape[0] == 1 and context.shape[1] < products:
            self.matrix = self._context_matrix(vector)
            self.inner = None
        self.nbytes = sum(part.nbytes() for part in (self.inner, self.outer) if part is not None)

    def jvp(self, vector):
        """As `GraphJacobian.jvp`."""
        tangent = unflatten(self.policy, vector)
        return self._tangents(self.outer.forward_tangent(tangent, self._context_jvp(vector, tangent))[0], tangent)

    def vjp(self, cotangents):
        """As `GraphJacobian.vjp`."""
        result = cotangents[0].new_zeros(self.size)
        gradient = unflatten(self.policy, result)
        context = self.outer.backward(cotangents[0], gradient)
        self._add_sigma(gradient, cotangents)
        if self.matrix is not None:
            result.add_(context[0] @ self.matrix)
        elif self.inner is not None:
            self._context_vjp(context, gradient)
        return result

    def _context_jvp(self, vector, tangent):
        """D v [K, C]"""
        if self.matrix is not None:
            return (self.matrix @ vector)[None]
        if self.inner is None:
            return None
        d_outputs, flow = self.inner.forward_tangent(tangent, None)
        d_gradient = hessian_product(self.inner_gradient, self.inner_leaves, self._tangents(d_outputs, tangent))
        return -self.learning_rate * self.inner.backward_tangent(d_gradient[0], flow, None)

    def _context_vjp(self, cotangent, gradient):
        """Add Dᵀs to a dict as θ, for s [K, C]."""
        d_outputs, flow = self.inner.forward_tangent(None, -self.learning_rate * cotangent)
        d_gradient = hessian_product(self.inner_gradient, self.inner_leaves, self._tangents(d_outputs, None))
        self.inner.backward_tangent(d_gradient[0], flow, gradient)
        self._add_sigma(gradient, d_gradient)

    def _context_matrix(self, vector):
        """D [C, P] of a single task, as a matrix."""
        size = self.policy.architecture.num_context_params
        rows = vector.new_zeros(size, self.size)
        for row, direction in zip(rows, torch.eye(size, dtype=vector.dtype, device=vector.device), strict=True):
            self._context_vjp(direction[None], unflatten(self.policy, row))
        return rows

    def _tangents(self, d_outputs, tangent):
        """Tangents of the distribution's parameters from those of the network's outputs and of θ (None for zero)."""
        if self.free_sigma is None:
            return (d_outputs,)
        d_sigma = torch.zeros_like(self.free_sigma) if tangent is None else self.free_sigma * tangent["sigma"]
        return d_outputs, d_sigma.reshape(1, 1, -1)

    def _add_sigma(self, gradient, cotangents):
        if self.free_sigma is not None:
            gradient["sigma"].add_(self.free_sigma * cotangents[1].reshape(-1))


def at_outputs(distribution, losses_of):
    """Losses as a function of a distribution's own parameters.

    Args:
        distribution: where.
        losses_of: function of a distribution, to a tensor of losses.

    Returns:
        (losses, detached; leaves, the parameters; the gradient of the losses' sum in them, with a graph for
        `hessian_product`)
    """
    leaves = [parameter.detach().clone().requires_grad_() for parameter in distribution]
    losses = losses_of(distribution.at(*leaves))
    return losses.detach(), leaves, torch.autograd.grad(losses.sum(), leaves, create_graph=True)


def hessian_product(gradient, leaves, tangents):
    """The Hessian at the outputs times tangents; it is symmetric, so reverse mode can be used."""
    tangents = [tangent.expand_as(leaf) for tangent, leaf in zip(tangents, leaves, strict=True)]
    return torch.autograd.grad(gradient, leaves, tangents, retain_graph=True)


def flatten(params):
    """θ as one vector [P], in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(policy, vector):
    """The parameters of a policy as views of a vector [P]."""
    sizes = [torch.Size(shape).numel() for shape in policy.shapes.values()]
    parts = torch.split(vector, sizes)
    return {name: part.reshape(shape) for (name, shape), part in zip(policy.shapes.items(), parts, strict=True)}
