"""What a Meta-World run's episodes have to learn from, at its saved policies: results/learning_signal.json.

    python studies/learning_signal.py ml1_reach/cavia/1 ml1_push_10/cavia/1 --checkpoints 0 50 100 200

The runs lie in runs/, as `make results` leaves them with `save_freq` in their row. Episodes are fresh ones of training
tasks.
"""

import sys
from typing import Any

import numpy as np
import torch
from checkpoints import measure_checkpoints, sampled
from evaluate import ROOT
from jaxtyping import Float
from kept import rounded
from torch import Tensor

from rl.algorithm import baseline
from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.algorithm.returns import discounted_returns
from rl.errors import UserError
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes

TARGET = ROOT / "results/learning_signal.json"
HAND, OBJECT = slice(0, 3), slice(4, 7)  # in an observation of Meta-World, in m
NEAR, MOVED = 0.05, 0.02  # m


def measure(setup: Setup, params: dict[str, Tensor], num_tasks: int, iteration: int) -> dict[str, Any]:
    """What there is to learn from in fresh episodes of so many training tasks.

    Args:
        iteration: names the random numbers; one that the run has not had.

    Returns:
        By name, [before, after] the update: "returns"; "success", the share of episodes that succeed; "near", "moved",
        shares of episodes in which the hand comes near the object, and in which the object moves; "explained",
        `explained_variance`. "signal": `signal` of the outer gradient.

    Raises:
        UserError: too few tasks, or an objective that no task has alone.
    """
    config, learner = setup.config, setup.learner()
    if num_tasks < config.meta_batch_size or config.exploration_credit:
        raise UserError(
            f"expected --num-tasks of at least the run's --meta-batch-size ({config.meta_batch_size}) and a run "
            "without --exploration-credit, which compares tasks"
        )
    with setup.sampler() as sampler:
        episodes = sampled(setup, sampler, params, iteration, num_tasks)
    theta = flatten(params)
    gradients = torch.stack([
        MetaObjective(learner.compute, setup.options, theta, [part.tasks(task, task + 1) for part in episodes]).gradient
        for task in range(num_tasks)
    ])  # fmt: skip
    found: dict[str, Any] = {}
    for part in episodes:
        for name, value in (*moves(part).items(), ("explained", explained_variance(part, config.gamma))):
            found.setdefault(name, []).append(rounded(value))
    return {**found, "signal": rounded(signal(gradients.double().numpy(), config.meta_batch_size))}


def moves(episodes: Episodes) -> dict[str, float]:
    """What episodes of Meta-World do: returns, successes, and whether hand and object meet and move."""
    running = episodes.mask > 0
    hand, thing = (episodes.observations[..., part] for part in (HAND, OBJECT))
    distance = np.where(running, np.linalg.norm(hand - thing, axis=-1), np.inf)
    path = np.where(running, np.linalg.norm(thing - thing[:, :1], axis=-1), 0)
    success = (episodes.infos["success"] > 0).any(axis=1)
    return {
        "returns": float(episodes.returns.mean()),
        "success": float(success.mean()),
        "near": float((distance.min(axis=1) < NEAR).mean()),
        "moved": float((path.max(axis=1) > MOVED).mean()),
    }


def explained_variance(episodes: Episodes, gamma: float) -> float:
    """The share of the variance of the discounted returns that the baseline explains, the mean over tasks."""
    observations, rewards, mask = (
        torch.from_numpy(np.asarray(part)).double() for part in (episodes.observations, episodes.rewards, episodes.mask)
    )
    targets = discounted_returns(rewards, gamma) * mask
    design = baseline.features(observations, mask)
    coefficients, _ = baseline.fit(design, targets)
    left = targets - baseline.values(design, coefficients)
    shares = [
        1 - float(rest[kept].var() / wanted[kept].var())
        for rest, wanted, kept in zip(left, targets, mask > 0, strict=True)
        if wanted[kept].var() > 0
    ]
    return float(np.mean(shares)) if shares else float("nan")


def signal(gradients: Float[np.ndarray, "K P"], num_tasks: int) -> float:
    """The share of the squared length of a gradient of so many tasks that is the expected gradient's, not noise's.

    Unbiased estimates of both from K tasks' gradients (arXiv 1812.06162, appendix A.1); below 0 where the estimate of
    the expected gradient's squared length is.
    """
    noise = gradients.var(axis=0, ddof=1).sum()
    expected = np.square(gradients.mean(axis=0)).sum() - noise / len(gradients)
    return float(expected / (expected + noise / num_tasks))


if __name__ == "__main__":
    sys.exit(measure_checkpoints("learning_signal.py", TARGET, 40, measure))
