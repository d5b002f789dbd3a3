"""What the outer step computes of a few tasks: surrogate loss, gradient, curvature products, KL divergence."""

import threading
from typing import NamedTuple

import torch

from rl.algorithm import inner_loop
from rl.algorithm.batch import prepare
from rl.algorithm.jacobians import ContextJacobian, GraphJacobian, at_outputs, hessian_product, unflatten


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
    fvp_subsample: float = 1.0


class Budget:
    """Memory shared by all chunks.

    Args:
        size: bytes.
    """

    def __init__(self, size=float("inf")):
        self._left = size
        self._lock = threading.Lock()

    def take(self, size):
        """Reserve `size` bytes if so many are left; returns whether they were."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class Curvature(NamedTuple):
    """What curvature products need: J, and the divergence from θ_old as a function of the distribution's parameters."""

    jacobian: GraphJacobian | ContextJacobian
    leaves: list
    gradient: tuple

    def product(self, vector):
        """Jᵀ M J v [P] with M the Hessian of the divergence at the outputs: at θ_old, where the divergence has no
        gradient, this Gauss-Newton product is exact."""
        return self.jacobian.vjp(hessian_product(self.gradient, self.leaves, self.jacobian.jvp(vector)))


class Chunk:
    """Losses are sums over the chunk's tasks; the learner divides by the number of all tasks.

    Args:
        policy: `MLPPolicy`.
        before, after: `Episodes` of the same tasks before and after the inner update.
        options: `Options`.
        dtype, device: of all tensors.
    """

    def __init__(self, policy, before, after, options, dtype, device):
        self.policy = policy
        self.options = options
        self.num_tasks = before.mask.shape[0]
        (self.before, self.after), self.ridge_retries = prepare(
            before, [before, after], options.gamma, options.gae_lambda, dtype, device
        )
        self.observation_weights = self.after.observation_weights
        self.kept = None

    def adapt(self, params):
        """The inner update from φ = 0 on the pre-update episodes: (`Adapted`, inner losses [K])."""
        start = inner_loop.unadapted(self.policy, params, self.num_tasks)
        return inner_loop.inner_step(self.policy, start, self.before, self.options.fast_lr)

    def linearize(self, vector, budget=None):
        """Linearize at θ_old: the surrogate loss and its gradient now, curvature products later.

        Args:
            vector: θ_old, flat [P].
            budget: `Budget` of what may be kept for the products; beyond it, each product computes them again.

        Returns:
            (surrogate loss −Σ w A π/π_old at θ_old, its gradient [P], inner losses [K])
        """
        self.vector = vector
        jacobian = self._jacobian(self.before, self.after)
        self.old = jacobian.distribution
        self.old_log_prob = self.after.log_prob(self.old)
        surrogate, _, cotangents = at_outputs(self.old, lambda distribution: self.surrogate(distribution)[None])
        gradient = jacobian.vjp([cotangent.detach() for cotangent in cotangents])
        self._keep(jacobian, budget or Budget())
        return surrogate[0], gradient, jacobian.inner_losses

    def product(self, vector):
        """The Hessian of the summed KL divergence at θ_old times v: [P] -> [P]."""
        return (self.kept or self._curvature()).product(vector)

    def release(self):
        """Drop what is kept for products."""
        self.kept = None

    def evaluate(self, vector):
        """(surrogate loss, KL(π_θ ‖ π_old)) at another θ, summed over the chunk's tasks."""
        adapted, _ = self.adapt(unflatten(self.policy, vector))
        with torch.no_grad():
            distribution = self.policy(adapted.params, adapted.context, self.after.observations)
            return self.surrogate(distribution), (self.observation_weights * distribution.kl(self.old)).sum()

    def surrogate(self, distribution):
        """−Σ w A π(a|s)/π_old(a|s), summed over the chunk's tasks."""
        ratio = torch.exp(self.after.log_prob(distribution) - self.old_log_prob)
        return -(self.after.weights * self.after.advantages * ratio).sum()

    def _keep(self, jacobian, budget):
        """Keep the curvature if there is room for it."""
        if self.options.fvp_subsample < 1:
            curvature = self._curvature()
            if budget.take(curvature.jacobian.nbytes):
                self.kept = curvature
        elif budget.take(jacobian.nbytes):
            self.kept = self._curvature(jacobian)

    def _curvature(self, jacobian=None):
        """`Curvature` on the given Jacobian, or on a new one on the share of steps that products use."""
        after = self.after
        if jacobian is None:
            fraction = self.options.fvp_subsample
            after = self.after.subsample(fraction)
            jacobian = self._jacobian(self.before.subsample(fraction), after)
        weights = after.observation_weights
        old = jacobian.distribution
        _, leaves, gradient = at_outputs(old, lambda distribution: (weights * distribution.kl(old)).sum(-1))
        return Curvature(jacobian, leaves, gradient)

    def _jacobian(self, before, after):
        options = self.options
        arguments = (self.policy, self.vector, before, after, options.fast_lr, options.first_order)
        if self.policy.architecture.num_context_params and self.policy.differentiated_by_hand:
            # Each conjugate-gradient iteration costs one product with J and one with Jᵀ, the gradient one with Jᵀ.
            return ContextJacobian(*arguments, products=options.cg_iters + 1)
        return GraphJacobian(*arguments)
