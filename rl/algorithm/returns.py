"""Returns, advantages and the weights that turn sums over steps into means. Pure tensor functions.

Axes: ... any leading axes (tasks), T steps, E episodes of a task.
"""

import torch


def discounted_returns(rewards, gamma):
    """Rₜ = rₜ + γ Rₜ₊₁, with R = 0 after the last step.

    Args:
        rewards: [..., T, E], zero where an episode has ended.
        gamma: discount factor.

    Returns:
        [..., T, E]
    """
    return generalized_advantages(rewards, torch.zeros_like(rewards), gamma, 1.0)


def generalized_advantages(rewards, values, gamma, gae_lambda):
    """Generalised advantage estimation (arXiv 1506.02438, equation 16) over a finite horizon.

        δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ),   Aₜ = δₜ + γλ Aₜ₊₁

    The value after the last step is 0: there is no bootstrapping at the time limit, as published.

    Args:
        rewards, values: [..., T, E], zero where an episode has ended.
        gamma: discount factor γ.
        gae_lambda: λ (the option `--tau`).

    Returns:
        advantages [..., T, E]
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


def normalize(advantages, mask):
    """(A − mean)/(std + 1e-8), mean and standard deviation over all valid steps of a task; zero elsewhere.

    Args:
        advantages, mask: [..., T, E]; mask is 1 at valid steps and 0 after an episode's end.

    Returns:
        [..., T, E]
    """
    count = mask.sum(dim=(-2, -1), keepdim=True)
    mean = (advantages * mask).sum(dim=(-2, -1), keepdim=True) / count
    centred = (advantages - mean) * mask
    std = (centred.square().sum(dim=(-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def step_weights(mask):
    """Weights whose dot product with any x [..., T, E] is the mean over episodes of the mean over valid steps.

    Args:
        mask: [..., T, E]; every episode has at least one valid step.

    Returns:
        [..., T, E], summing to 1 over the last two axes.
    """
    return mask / mask.sum(dim=-2, keepdim=True) / mask.shape[-1]
