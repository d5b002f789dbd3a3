"""A few tasks' share of the outer step: the surrogate loss and its derivatives through the inner update.

`GraphChunk` leaves all derivatives to automatic differentiation and serves every policy. `ContextChunk` knows that only
a context is adapted and that all tasks share θ, and multiplies by hand-written derivatives; it is what CAVIA runs on.
"""

from typing import NamedTuple

import torch

from rl import adaptation
from rl.batch import prepare
from rl.policies.linearization import Linearization


class Options(NamedTuple):
    """Hyper-parameters of the outer step, named as on the command line (`gae_lambda` is `--tau`)."""

    gamma: float = 0.95
    gae_lambda: float = 1.0
    fast_lr: float = 1.0
    first_order: bool = False
    max_kl: float = 1e-2
    cg_iters: int = 10
    cg_damping: float = 1e-5
    ls_max_steps: int = 15
    ls_backtrack_ratio: float = 0.8


class Chunk:
    """What both kinds share. Losses are sums over the chunk's tasks; the learner divides by the number of all tasks.

    Args:
        policy: `MLPPolicy`.
        before, after: `Episodes` of the same tasks before and after the inner update.
        options: `Options`.
        dtype, device: of all tensors.
    """

    def __init__(self, policy, before, after, options, dtype, device):
        self.policy = policy
        self.options = options
        (self.before, self.after), self.ridge_retries = prepare(
            before, [before, after], options.gamma, options.gae_lambda, dtype, device
        )
        self.observation_weights = self.after.observation_weights

    def adapt(self, params, create_graph=False):
        """The inner update from φ = 0 on the pre-update episodes: (`Adapted`, inner losses [K])."""
        start = adaptation.unadapted(self.policy, params, self.before.weights.shape[0])
        return adaptation.inner_step(self.policy, start, self.before, self.options.fast_lr, create_graph)

    def evaluate(self, vector):
        """(surrogate loss, KL(π_θ ‖ π_old)) at another θ, summed over the chunk's tasks."""
        adapted, _ = self.adapt(unflatten(self.policy, vector))
        with torch.no_grad():
            distribution = self.policy(adapted.params, adapted.context, self.after.observations)
            return self.surrogate(distribution), self.divergence(distribution)

    def surrogate(self, distribution):
        """−Σ w A π(a|s)/π_old(a|s), summed over the chunk's tasks."""
        ratio = torch.exp(self.after.log_prob(distribution) - self.old_log_prob)
        return -(self.after.weights * self.after.advantages * ratio).sum()

    def divergence(self, distribution):
        """Σ w KL(π ‖ π_old), summed over the chunk's tasks."""
        return (self.observation_weights * distribution.kl(self.old)).sum()

    def remember(self, distribution):
        """Take the distribution at θ_old, the constant of the ratio and of the divergence."""
        self.old = distribution.detach()
        self.old_log_prob = self.after.log_prob(self.old)


class GraphChunk(Chunk):
    """Derivatives by automatic differentiation, on graphs that are kept."""

    def linearize(self, vector):
        """Build the graphs at θ_old: the surrogate's gradient now, curvature products later.

        With ratio exp(log π − log π_old), surrogate −Σ w A ratio at θ = θ_old.

        Args:
            vector: θ_old, flat [P].

        Returns:
            (surrogate loss, its gradient [P], inner losses [K])
        """
        self.vector = vector.detach().clone().requires_grad_()
        params = unflatten(self.policy, self.vector)
        adapted, inner_losses = self.adapt(params, create_graph=not self.options.first_order)
        outputs = self.policy(adapted.params, adapted.context, self.after.observations)
        self.remember(outputs)
        surrogate = self.surrogate(outputs)
        (gradient,) = torch.autograd.grad(surrogate, self.vector, retain_graph=True)

        # A dummy cotangent w makes the reverse-mode product Jᵀw a function of w whose own reverse mode is J v: both
        # directions then run on kept graphs, and nothing of the primal computation is ever repeated.
        self.outputs = tuple(outputs)
        self.cotangents = tuple(torch.zeros_like(output).requires_grad_() for output in self.outputs)
        (self.pullback,) = torch.autograd.grad(self.outputs, self.vector, self.cotangents, create_graph=True)
        return surrogate.detach(), gradient, inner_losses

    def product(self, vector):
        """Jᵀ M J v [P], the Gauss-Newton (exact at θ_old) Hessian of the summed KL divergence times v."""
        tangents = torch.autograd.grad(self.pullback, self.cotangents, vector, retain_graph=True)
        metric = self.old.metric(tangents, self.observation_weights)
        return torch.autograd.grad(self.outputs, self.vector, metric, retain_graph=True)[0]

    def release(self):
        """Drop the graphs."""
        del self.outputs, self.cotangents, self.pullback


class ContextChunk(Chunk):
    """Derivatives by hand, for a policy that adapts its context.

    With φ′(θ) = −α ∂L/∂φ (θ, 0), both A = dφ′/dθ and its transpose are one pass of the R operator over the inner loss:
    A v moves θ along v and reads how ∂L/∂φ moves; Aᵀs moves φ along s and reads how ∂L/∂θ moves.
    """

    def linearize(self, vector):
        """As `GraphChunk.linearize`."""
        policy, options = self.policy, self.options
        params = unflatten(policy, vector)
        context = policy.initial_context(self.before.weights.shape[0], vector)
        inner = Linearization(policy, params, context, self.before.observations, second_order=True)
        losses, self.inner_outputs, self.inner_gradient = self._at_outputs(
            inner, params, lambda distribution: adaptation.reinforce(distribution, self.before)
        )
        context = -options.fast_lr * inner.backward(self.inner_gradient[0].detach(), None)
        self.inner = None if options.first_order else inner

        self.outer = Linearization(policy, params, context, self.after.observations)
        self.remember(self.outer.distribution)
        surrogate, _, cotangents = self._at_outputs(self.outer, params, lambda d: self.surrogate(d)[None])
        _, self.outer_outputs, self.metric = self._at_outputs(self.outer, params, lambda d: self.divergence(d)[None])
        self.adapted_by = self._matrix(vector) if self._worth_a_matrix() else None
        gradient = torch.zeros_like(vector)
        self.pull(cotangents, gradient)
        return surrogate[0], gradient, losses

    def product(self, vector):
        """As `GraphChunk.product`."""
        tangent = unflatten(self.policy, vector)
        d_outputs, _ = self.outer.forward_tangent(tangent, self._push_context(vector, tangent))
        result = torch.zeros_like(vector)
        self.pull(_second(self.metric, self.outer_outputs, d_outputs, tangent), result)
        return result

    def pull(self, cotangents, gradient):
        """Add to a flat gradient [P] what cotangents of the outer (outputs, sigma) bring to θ, through φ′ too."""
        accumulated = unflatten(self.policy, gradient)
        context = self.outer.backward(cotangents[0].detach(), accumulated)
        _add_sigma(accumulated, cotangents)
        if self.adapted_by is not None:
            gradient.add_(context[0] @ self.adapted_by)
        elif self.inner is not None:
            self._pull_context(context, accumulated)

    def release(self):
        """Drop what is kept for products."""
        del self.inner, self.outer, self.inner_gradient, self.inner_outputs, self.metric, self.outer_outputs
        self.adapted_by = None

    def _push_context(self, vector, tangent):
        """A v [K, C]: how the adapted contexts move with θ."""
        if self.adapted_by is not None:
            return (self.adapted_by @ vector)[None]
        if self.inner is None:
            return None
        d_outputs, flow = self.inner.forward_tangent(tangent, None)
        moved = _second(self.inner_gradient, self.inner_outputs, d_outputs, tangent)
        return -self.options.fast_lr * self.inner.backward_tangent(moved[0], flow, None)

    def _pull_context(self, cotangent, accumulated):
        """Add Aᵀs for s [K, C]."""
        d_outputs, flow = self.inner.forward_tangent(None, -self.options.fast_lr * cotangent)
        moved = _second(self.inner_gradient, self.inner_outputs, d_outputs, None)
        self.inner.backward_tangent(moved[0], flow, accumulated)
        _add_sigma(accumulated, moved)

    def _worth_a_matrix(self):
        """Whether A itself is cheaper than products with it: one task, and fewer rows than products to come."""
        size = self.policy.architecture.num_context_params
        return self.inner is not None and self.before.weights.shape[0] == 1 and size <= self.options.cg_iters

    def _matrix(self, vector):
        """A [C, P] of a chunk of one task."""
        size = self.policy.architecture.num_context_params
        rows = vector.new_zeros(size, vector.numel())
        for row, direction in zip(rows, torch.eye(size, dtype=vector.dtype, device=vector.device), strict=True):
            self._pull_context(direction[None], unflatten(self.policy, row))
        self.inner = None
        return rows

    def _at_outputs(self, linearization, params, loss_of):
        """A loss as a function of the network's outputs and of sigma, where there is one.

        Returns:
            (losses, detached; the leaves; their gradients, with a graph for second derivatives)
        """
        leaves = [linearization.distribution[0].clone().requires_grad_()]
        if "sigma" in params:
            leaves.append(params["sigma"].detach().clone().requires_grad_())
        losses = loss_of(self.policy.head.distribution(leaves[0], {"sigma": leaves[-1]}))
        return losses.detach(), leaves, torch.autograd.grad(losses.sum(), leaves, create_graph=True)


def make_chunk(policy, before, after, options, dtype, device):
    """The cheaper kind of chunk for a policy; the arguments are those of `Chunk`."""
    kind = ContextChunk if policy.architecture.num_context_params else GraphChunk
    return kind(policy, before, after, options, dtype, device)


def _second(gradient, leaves, d_outputs, tangent):
    """The Hessian of a loss at the outputs times (d outputs, d sigma); it is symmetric, so reverse mode serves."""
    directions = [d_outputs.expand_as(leaves[0])]
    if len(leaves) > 1:
        directions.append(torch.zeros_like(leaves[1]) if tangent is None else tangent["sigma"])
    return torch.autograd.grad(gradient, leaves, directions, retain_graph=True)


def _add_sigma(accumulated, cotangents):
    if len(cotangents) > 1:
        accumulated["sigma"].add_(cotangents[1].detach())


def flatten(params):
    """θ as one vector [P], in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(policy, vector):
    """The parameters of a policy as views of a vector [P]."""
    sizes = [torch.Size(shape).numel() for shape in policy.shapes.values()]
    parts = torch.split(vector, sizes)
    return {name: part.reshape(shape) for (name, shape), part in zip(policy.shapes.items(), parts, strict=True)}
