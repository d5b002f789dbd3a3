"""A policy's distribution as a function of θ, linearized at one point.

    J = d(distribution parameters)/dθ, through the adapted context or weights where it has adapted

`GraphJacobian` leaves the derivatives to automatic differentiation and serves every policy; the faster ones by hand,
for policies with a context, are in `rl.algorithm.context_jacobian`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rl.policies import MLPPolicy
from rl.policies.heads import Distribution

Vector = Float[Tensor, " P"]


@runtime_checkable
class Jacobian(Protocol):
    """Products with J and its transpose.

    Attributes:
        distribution: at the given observations, outside of any graph.
        inner_losses: of the first inner update, [K]; zero where there is none.
        nbytes: bytes kept for products.
    """

    distribution: Distribution
    inner_losses: Float[Tensor, " K"]
    nbytes: int

    def jvp(self, vector: Vector) -> Sequence[Tensor]:
        """J v: tangents of the distribution's parameters."""
        ...

    def vjp(self, cotangents: Sequence[Tensor]) -> Vector:
        """Jᵀ u, from cotangents of the distribution's parameters."""
        ...


class GraphJacobian:
    """J on kept graphs.

    Args:
        forward: θ -> (the distribution, inner losses outside of its graph).
        products: how many products will follow a first one with Jᵀ; without any, there is no `jvp`.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        theta: Vector,
        forward: Callable[[dict[str, Tensor]], tuple[Distribution, Tensor]],
        products: int = 1,
    ):
        self.theta = theta.detach().clone().requires_grad_()
        kept = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            # Detached: a tensor kept here with its own graph would keep that graph, and itself, for ever.
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            distribution, self.inner_losses = forward(unflatten(policy, self.theta))
            self.outputs = tuple(distribution)
            if products:
                # A dummy cotangent w makes the reverse-mode product Jᵀw a function of w whose own reverse mode is J v:
                # both directions then run on kept graphs, and nothing of the primal computation is ever repeated.
                self.cotangents = [torch.zeros_like(output).requires_grad_() for output in self.outputs]
                (self.pullback,) = torch.autograd.grad(self.outputs, self.theta, self.cotangents, create_graph=True)
        self.distribution = distribution.detach()
        self.nbytes = sum(kept.values())

    def jvp(self, vector: Vector) -> Sequence[Tensor]:
        """As `Jacobian.jvp`."""
        return torch.autograd.grad(self.pullback, self.cotangents, vector, retain_graph=True)

    def vjp(self, cotangents: Sequence[Tensor]) -> Vector:
        """As `Jacobian.vjp`."""
        return torch.autograd.grad(self.outputs, self.theta, cotangents, retain_graph=True)[0]


def at_outputs(
    distribution: Distribution, losses_of: Callable[[Distribution], Tensor]
) -> tuple[Tensor, list[Tensor], tuple[Tensor, ...]]:
    """Losses as a function of a distribution's own parameters, of all or of some of them.

    Returns:
        (losses, detached; leaves, the parameters; the gradient of the losses' sum in them, with a graph for
        `hessian_product`)
    """
    leaves = [parameter.detach().clone().requires_grad_() for parameter in distribution]
    losses = losses_of(distribution.at(*leaves))
    gradient = torch.autograd.grad(losses.sum(), leaves, create_graph=True, materialize_grads=True)
    return losses.detach(), leaves, gradient


def hessian_product(
    gradient: Sequence[Tensor], leaves: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The Hessian at the outputs times tangents; it is symmetric, so reverse mode can be used."""
    tangents = [tangent.expand_as(leaf) for tangent, leaf in zip(tangents, leaves, strict=True)]
    return torch.autograd.grad(gradient, leaves, tangents, retain_graph=True)


def flatten(params: dict[str, Tensor]) -> Vector:
    """θ as one vector, in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(policy: MLPPolicy, theta: Vector) -> dict[str, Tensor]:
    """The parameters of a policy as views of a vector."""
    sizes = [torch.Size(shape).numel() for shape in policy.shapes.values()]
    parts = torch.split(theta, sizes)
    return {name: part.reshape(shape) for (name, shape), part in zip(policy.shapes.items(), parts, strict=True)}
