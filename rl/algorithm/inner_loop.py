"""The inner loop: adaptation to a task by gradient steps on its episodes.

CAVIA (arXiv 1810.03642) changes the context φ alone, MAML (arXiv 1703.03400) all weights θ. Both take a gradient step
on the inner objective of every task at once; the tasks' losses are summed, and since task k's loss depends on nothing
but φₖ or θₖ, the gradient of the sum holds each task's own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.batch import Batch
from rl.algorithm.inner_objective import InnerObjective, score
from rl.policies import MLPPolicy

# The most activations of a hidden layer that are computed at once where no graph is kept; more are split by tasks, then
# by rows. On the CPU they then stay in the cache for the next layer, and a worker needs little memory. A GPU would wait
# for so small operations to be started: there a layer may take 128 MB.
MAX_ACTIVATIONS = 2**18
MAX_ACTIVATIONS_ON_GPU = 2**25


class Adapted(NamedTuple):
    """The policy's arguments besides observations: weights (by task [K, ...] once adapted) and context [K, C]."""

    params: dict[str, Tensor]
    context: Float[Tensor, "K C"] | None


class Update(NamedTuple):
    """What an inner update is: its learning rate α (`--fast-lr`), whether its gradient counts as a constant, and what
    it descends.
    """

    learning_rate: float
    first_order: bool = False
    objective: InnerObjective = score


def unadapted(policy: MLPPolicy, params: dict[str, Tensor], num_tasks: int) -> Adapted:
    """The start of every task: the shared θ and φ = 0."""
    return Adapted(params, policy.initial_context(num_tasks, next(iter(params.values()))))


def inner_losses(
    policy: MLPPolicy, adapted: Adapted, batch: Batch, objective: InnerObjective = score
) -> Float[Tensor, " K"]:
    """The inner objective of each task."""
    return objective(policy(adapted.params, adapted.context, batch.observations), batch)


def inner_step(
    policy: MLPPolicy,
    adapted: Adapted,
    batch: Batch,
    learning_rate: float,
    objective: InnerObjective = score,
    create_graph: bool = False,
) -> tuple[Adapted, Float[Tensor, " K"]]:
    """One gradient step of every task on its context (CAVIA) or on all its weights (MAML, a policy without context).

        φₖ ← φₖ − α ∇φ Lₖ(θ, φₖ)        or        θₖ ← θₖ − α ∇θ Lₖ(θₖ)

    Args:
        adapted: where the step starts.
        batch: of episodes sampled there.
        learning_rate: α (`--fast-lr`).
        create_graph: keep the step differentiable in θ (second order). Without it the gradient is a constant.

    Returns:
        (the new `Adapted`, inner losses at the start, detached)
    """
    if adapted.context is not None:
        if create_graph:
            losses, gradient = _context_gradient(
                policy, adapted.params, adapted.context, batch, objective, create_graph=True
            )
        else:
            losses, gradient = _in_parts(policy, adapted.params, adapted.context, batch, objective)
        return Adapted(adapted.params, adapted.context - learning_rate * gradient), losses

    num_tasks = batch.weights.shape[0]
    with torch.enable_grad():
        shapes = policy.shapes
        own = {
            name: value if value.dim() > len(shapes[name]) else value.expand(num_tasks, *value.shape)
            for name, value in adapted.params.items()
        }
        own = {name: _leaf(value) for name, value in own.items()}
        losses = inner_losses(policy, Adapted(own, None), batch, objective)
        gradients = torch.autograd.grad(
            losses.sum(), list(own.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        stepped = {
            name: value - learning_rate * gradient
            for (name, value), gradient in zip(own.items(), gradients, strict=True)
        }
    return Adapted(stepped, None), losses.detach()


def adapt(
    policy: MLPPolicy, params: dict[str, Tensor], batches: Sequence[Batch], update: Update, create_graph: bool = False
) -> tuple[list[Adapted], Float[Tensor, " K"]]:
    """One inner update on each batch in turn, from θ and φ = 0: (where each starts and the last one leads, the losses
    of the first).
    """
    points, losses = [unadapted(policy, params, batches[0].weights.shape[0])], []
    for batch in batches:
        stepped, before = inner_step(
            policy, points[-1], batch, update.learning_rate, update.objective, create_graph and not update.first_order
        )
        points.append(stepped)
        losses.append(before)
    return points, losses[0]


def with_sampled(policy: MLPPolicy, params: dict[str, Tensor], batches: Sequence[Batch], update: Update) -> list[Batch]:
    """The batches of each update with log π_sampled, where θ sampled the first of them."""
    *earlier, last = batches
    starts = [unadapted(policy, params, len(last.weights))]
    if earlier:
        starts, _ = adapt(policy, params, earlier, update)
    with torch.no_grad():
        return [
            batch._replace(sampled=batch.log_prob(policy(*start, batch.observations)))
            for start, batch in zip(starts, batches, strict=True)
        ]


def _context_gradient(
    policy: MLPPolicy,
    params: dict[str, Tensor],
    context: Float[Tensor, "K C"],
    batch: Batch,
    objective: InnerObjective,
    create_graph: bool = False,
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K C"]]:
    """(losses, detached; ∇φ L)"""
    with torch.enable_grad():
        context = _leaf(context)
        losses = inner_losses(policy, Adapted(params, context), batch, objective)
        (gradient,) = torch.autograd.grad(losses.sum(), context, create_graph=create_graph)
    return losses.detach(), gradient


def _in_parts(
    policy: MLPPolicy,
    params: dict[str, Tensor],
    context: Float[Tensor, "K C"],
    batch: Batch,
    objective: InnerObjective,
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K C"]]:
    """As `_context_gradient` without a graph, one part of the tasks or of a task's rows at a time."""
    num_tasks, num_rows = batch.observations.shape[:2]
    size = num_rows * policy.width
    most = MAX_ACTIVATIONS if batch.observations.is_cpu else MAX_ACTIVATIONS_ON_GPU
    together = max(1, most // size)
    cuts = 1 if batch.rows is not None else math.ceil(size / most)
    found = []
    for start in range(0, num_tasks, together):
        tasks = slice(start, start + together)
        part, begin = batch.tasks(tasks), context[tasks]
        pieces = [_context_gradient(policy, params, begin, piece, objective) for piece in part.cut(cuts)]
        found.append([sum(same) for same in zip(*pieces, strict=True)])
    losses, gradients = (torch.cat(same) for same in zip(*found, strict=True))
    return losses, gradients


def _leaf(value: Tensor) -> Tensor:
    """A tensor to differentiate in: itself if it belongs to a graph, else a leaf with the same memory."""
    return value if value.requires_grad else value.detach().requires_grad_()


def detach(adapted: Adapted) -> Adapted:
    """The same weights and context outside of any graph."""
    params = {name: value.detach() for name, value in adapted.params.items()}
    return Adapted(params, None if adapted.context is None else adapted.context.detach())
