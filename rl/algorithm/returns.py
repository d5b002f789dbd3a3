"""Returns, advantages and the weights that turn sums over steps into means. Pure tensor functions.

Axes: K any leading axes (tasks), T steps, E episodes of a task.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Steps = Float[Tensor, "*K T E"]


def discounted_returns(rewards: Steps, gamma: float) -> Steps:
    """Rₜ = rₜ + γ Rₜ₊₁, with R = 0 after the last step; rewards are zero where an episode has ended."""
    return generalized_advantages(rewards, torch.zeros_like(rewards), gamma, 1.0)


def generalized_advantages(rewards: Steps, values: Float[Tensor, "..."], gamma: float, gae_lambda: float) -> Steps:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16) over a finite horizon.

        δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ),   Aₜ = δₜ + γλ Aₜ₊₁

    The value after the last step is 0: there is no bootstrapping at the time limit, as published.

    Args:
        rewards, values: zero where an episode has ended.
        gae_lambda: λ (the option `--tau`).
    """
    if rewards.shape != values.shape:
        raise ValueError(f"rewards {tuple(rewards.shape)} and values {tuple(values.shape)} differ in shape")
    next_values = torch.cat([values[..., 1:, :], torch.zeros_like(values[..., :1, :])], dim=-2)
    deltas = rewards + gamma * next_values - values
    running = torch.zeros_like(deltas[..., 0, :])
    backwards = []
    for delta in reversed(deltas.unbind(-2)):
        running = delta + gamma * gae_lambda * running
        backwards.append(running)
    return torch.stack(backwards[::-1], dim=-2)


def normalize(advantages: Steps, mask: Steps) -> Steps:
    """(A − mean)/(std + 1e-8), mean and standard deviation over all valid steps of a task; zero elsewhere.

    Args:
        mask: 1 at valid steps and 0 after an episode's end.
    """
    count = mask.sum(dim=(-2, -1), keepdim=True)
    mean = (advantages * mask).sum(dim=(-2, -1), keepdim=True) / count
    centred = (advantages - mean) * mask
    std = (centred.square().sum(dim=(-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def step_weights(mask: Steps) -> Steps:
    """Weights, summing to 1 a task, whose dot product with any x is the mean over episodes of the mean over valid
    steps. Every episode has at least one.
    """
    return mask / mask.sum(dim=-2, keepdim=True) / mask.shape[-1]
