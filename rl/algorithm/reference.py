"""The whole algorithm in plain automatic differentiation, task by task: read this first.

Neuromodulated CAVIA (arXiv 2111.00134) is CAVIA (arXiv 1810.03642) with another policy; MAML (arXiv 1703.03400) adapts
θ in the place of φ; the outer step is TRPO (arXiv 1502.05477). The learner computes the same numbers faster, and the
tests compare the two. From top to bottom: a task's batches, the inner update, the surrogate loss and the divergence as
functions of θ through it, and the outer step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rl.algorithm import baseline, returns, trpo
from rl.algorithm.options import Options
from rl.algorithm.trajectories import Trajectories
from rl.policies import MLPPolicy
from rl.policies.heads import Distribution

Vector = Float[Tensor, " P"]
Params = Mapping[str, Tensor]


class Batch(NamedTuple):
    """All steps of one task's episodes, N = T·E, with a task axis of one; masked steps have weight 0."""

    observations: Float[Tensor, "1 N O"]
    actions: Shaped[Tensor, "1 N ..."]
    advantages: Float[Tensor, "1 N"]
    weights: Float[Tensor, "1 N"]
    sampled: Float[Tensor, "1 N"] | None = None  # log π_old, once that is known

    def log_prob(self, distribution: Distribution) -> Float[Tensor, "1 N"]:
        """log π(a|s), summed over action dimensions."""
        return distribution.log_prob(self.actions)


Objective = Callable[[Distribution, Any], Float[Tensor, " 1"]]


def batches(all_episodes: Sequence[Trajectories], k: int, options: Options, dtype: torch.dtype) -> list[Batch]:
    """Task k's episodes after 0, 1, 2, … inner updates, with advantages.

    Âₜ = Σᵢ (γλ)ⁱ δₜ₊ᵢ,  δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)        (GAE, arXiv 1506.02438, equation 16)

    V is fitted to the episodes of each update, and what is fitted for the last one serves the episodes after it, too; Â
    is then normalised over the task's valid steps.
    """
    coefficients, result = None, []
    for number, episodes in enumerate(all_episodes):
        observations, rewards, mask = (
            torch.as_tensor(array[k : k + 1]).to(dtype)
            for array in (episodes.observations, episodes.rewards, episodes.mask)
        )
        actions = torch.as_tensor(episodes.actions[k : k + 1])
        actions = actions.to(dtype) if actions.is_floating_point() else actions
        design = baseline.features(observations, mask)
        if coefficients is None or number < len(all_episodes) - 1:
            coefficients, _ = baseline.fit(design, returns.discounted_returns(rewards, options.gamma) * mask)
        values = baseline.values(design, coefficients)
        advantages = returns.generalized_advantages(rewards, values, options.gamma, options.gae_lambda)
        advantages = returns.normalize(advantages * mask, mask)
        flat = (array.flatten(1, 2) for array in (observations, actions, advantages, returns.step_weights(mask)))
        result.append(Batch(*flat))
    return result


def reinforce(distribution: Distribution, batch: Batch) -> Float[Tensor, " 1"]:
    """L = −mean over episodes of the mean over valid steps of Â log π(a|s)        (REINFORCE)."""
    return -(batch.weights * batch.advantages * batch.log_prob(distribution)).sum(-1)


def adapt(
    policy: MLPPolicy, params: Params, before: Sequence[Batch], options: Options, objective: Objective = reinforce
) -> tuple[Params, Float[Tensor, "1 C"] | None]:
    """(θ', φ') after an inner update on each batch; first order takes the gradients as constants.

    φ' = φ − α ∇_φ L(θ, φ), from φ = 0        (CAVIA, arXiv 1810.03642, section 3)
    θ' = θ − α ∇_θ L(θ)                         (MAML, arXiv 1703.03400, equation 1)
    """
    context = policy.initial_context(1, next(iter(params.values())))
    context = None if context is None else context.requires_grad_()
    for batch in before:
        loss = objective(policy(params, context, batch.observations), batch)
        variables = list(params.values()) if context is None else [context]
        gradients = torch.autograd.grad(
            loss.sum(), variables, create_graph=not options.first_order, allow_unused=True, materialize_grads=True
        )
        stepped = [value - options.fast_lr * gradient for value, gradient in zip(variables, gradients, strict=True)]
        if context is None:
            params = dict(zip(params, stepped, strict=True))
        else:
            context = stepped[0]
    return params, context


class Objectives:
    """Outer loss and KL divergence of the tasks as functions of θ, through the inner updates.

    Args:
        old: θ_old, whose policies sampled the episodes.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        old: Vector,
        episodes: Sequence[Trajectories],
        options: Options,
        objective: Objective = reinforce,
    ):
        self.policy, self.options, self.objective = policy, options, objective
        self.tasks = [batches(episodes, k, options, old.dtype) for k in range(len(episodes[0].mask))]
        self.old = [[self.adapted(old, task, u).detach() for u in range(len(task))] for task in self.tasks]
        self.tasks = [
            [batch._replace(sampled=batch.log_prob(sampler)) for batch, sampler in zip(task, of_task, strict=True)]
            for task, of_task in zip(self.tasks, self.old, strict=True)
        ]
        self.credit = standardized((episodes[-1].rewards * episodes[-1].mask).sum(1).mean(1))

    def adapted(self, theta: Vector, task: Sequence[Batch], updates: int) -> Distribution:
        """π_θ(· | s; φ'(θ)) after so many inner updates, at the observations of the episodes that follow."""
        theta = theta if theta.requires_grad else theta.detach().requires_grad_()
        params = unflatten(self.policy, theta)
        arguments = adapt(self.policy, params, task[:updates], self.options, self.objective)
        return self.policy(*arguments, task[updates].observations)

    def __call__(self, theta: Vector) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """(outer loss, KL), means over tasks        (TRPO, arXiv 1502.05477, equation 14).

        S(θ) = −E[ Â π_θ(a|s) / π_old(a|s) ],   D(θ) = E[ KL(π_θ ‖ π_old) ]

        The Normal's divergence is averaged over action dimensions, as published. With weights for them, the terms of
        `rl.algorithm.terms.Unadapted`, which credit exploration, are added.
        """
        losses, divergences, options = [], [], self.options
        for task, old, credit in zip(self.tasks, self.old, self.credit, strict=True):
            before, after, new = task[0], task[-1], self.adapted(theta, task, len(task) - 1)
            losses.append(self.surrogate(after, new, after.advantages))
            divergences.append((after.weights * new.kl(old[-1])).sum())
            if options.credits_exploration:
                new = self.adapted(theta, task, 0)
                gains = options.pre_update_return * before.advantages + options.exploration_credit * credit
                shaped = options.inner_kl_penalty * old[0].kl(new) - options.entropy_bonus * new.entropy()
                losses[-1] = losses[-1] + self.surrogate(before, new, gains) + (before.weights * shaped).sum()
                kl = (before.weights * new.kl(old[0])).sum()
                divergences[-1] = divergences[-1] + options.pre_update_kl * kl
        return torch.stack(losses).mean(), torch.stack(divergences).mean()

    def surrogate(self, batch: Batch, new: Distribution, gains: Float[Tensor, "1 N"]) -> Float[Tensor, ""]:
        """−Σ w A ρ,  ρ = π_θ/π_old; or with clipped ratios (PPO, arXiv 1707.06347, equation 7)."""
        assert batch.sampled is not None  # by the constructor
        ratio = torch.exp(batch.log_prob(new) - batch.sampled)
        clipped = ratio.clamp(1 - self.options.clip_eps, 1 + self.options.clip_eps) if self.options.clip_eps else ratio
        return -(batch.weights * torch.minimum(gains * ratio, gains * clipped)).sum()


def standardized(values: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """With mean 0 and standard deviation 1; 0 where they differ by rounding alone."""
    centred = values - values.mean()
    alike = centred.std() <= 1e-9 * np.abs(values).mean()
    return np.zeros_like(centred) if alike else centred / centred.std()


def hessian_product(divergence: Tensor, theta: Vector, damping: float) -> Callable[[Vector], Vector]:
    """v ↦ (H + damping I) v with H v = ∇(∇D · v): the divergence differentiated twice."""
    (slope,) = torch.autograd.grad(divergence, theta, create_graph=True)

    def product(vector: Vector) -> Vector:
        (curved,) = torch.autograd.grad(slope @ vector, theta, retain_graph=True)
        return curved + damping * vector

    return product


def conjugate_gradient(product: Callable[[Vector], Vector], b: Vector, iterations: int) -> Vector:
    """x ≈ A⁻¹ b from x = 0, until rᵀr < 1e-10."""
    x, residual, direction = torch.zeros_like(b), b, b
    for _ in range(iterations):
        squared = residual @ residual
        if squared < 1e-10:
            break
        curved = product(direction)
        length = squared / (direction @ curved)
        x, residual = x + length * direction, residual - length * curved
        direction = residual + (residual @ residual) / squared * direction
    return x


def step(
    policy: MLPPolicy,
    params: Params,
    episodes: Sequence[Trajectories],
    options: Options,
    outer: trpo.Options,
    objective: Objective = reinforce,
) -> tuple[Params, dict[str, float]]:
    """One outer step: (θ, figures). θ is unchanged where no trial is accepted.

    x = (H + damping I)⁻¹ ∇S,   β = √(2 δ / xᵀHx),   θ ← θ − ρʲ β x        (arXiv 1502.05477, appendix C)

    j is the first trial at which S falls and D < δ.
    """
    theta = flatten(policy, params).detach().requires_grad_()
    objectives = Objectives(policy, theta, episodes, options, objective)
    loss, divergence = objectives(theta)
    (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
    product = hessian_product(divergence, theta, outer.cg_damping)
    x = conjugate_gradient(product, gradient, outer.cg_iters)
    full_step = (2 * outer.max_kl / (x @ product(x))).sqrt() * x  # NaN where xᵀHx < 0: then no trial is accepted
    for trial in range(outer.ls_max_steps):
        fraction = outer.ls_backtrack_ratio**trial
        stepped = theta.detach() - fraction * full_step
        new_loss, kl = (value.item() for value in objectives(stepped))
        if new_loss < loss.item() and kl < outer.max_kl:
            return unflatten(policy, stepped), {"improve": new_loss - loss.item(), "kl": kl, "step_size": fraction}
    return unflatten(policy, theta.detach()), {"improve": 0.0, "kl": 0.0, "step_size": 0.0}


def flatten(policy: MLPPolicy, params: Params) -> Vector:
    """θ as one vector, in the order of `policy.shapes`."""
    return torch.cat([params[name].flatten() for name in policy.shapes])


def unflatten(policy: MLPPolicy, vector: Vector) -> Params:
    """The inverse of `flatten`."""
    parts = vector.split([torch.Size(shape).numel() for shape in policy.shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(policy.shapes.items(), parts, strict=True)}
