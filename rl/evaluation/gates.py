"""What gates do, in numbers, of the same N observations for all tasks. U counts the updates from 0 to the last."""

import itertools
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from rl.evaluation import recordings
from rl.evaluation.evaluate import replay
from rl.policies.mlp import MLPPolicy
from rl.sampling.rollout import AdaptationPlan, Rollouts

SATURATED = 0.99  # |g| above this counts as saturated


def shares(gates: Float[np.ndarray, "K U N H"]) -> dict[str, Any]:
    """Shares of a layer's gates, which lie in [−1, 1]. A gate counts as positive at 0, as sign(0) = +1.

    Returns:
        dict of
            negative: [U] share of gates below 0;
            saturated: [U] share of gates with |g| > 0.99;
            constant: share of units whose gate has one sign for all tasks, updates and observations;
            flips_between_tasks: [U] share of (unit, observation) whose sign differs between two tasks, mean over all
                pairs of tasks; None for a single task;
            flips_between_steps: [U − 1] share of (task, unit, observation) whose sign an update changes.
    """
    negative = gates < 0
    always, never = negative.all(axis=(0, 1, 2)), ~negative.any(axis=(0, 1, 2))
    pairs = [(one != other).mean(axis=(1, 2)) for one, other in itertools.combinations(negative, 2)]
    return {
        "negative": negative.mean(axis=(0, 2, 3)),
        "saturated": (np.abs(gates) > SATURATED).mean(axis=(0, 2, 3)),
        "constant": float((always | never).mean()),
        "flips_between_tasks": np.mean(pairs, axis=0) if pairs else None,
        "flips_between_steps": (negative[:, 1:] != negative[:, :-1]).mean(axis=(0, 2, 3)),
    }


def gate_curves(
    policy: MLPPolicy, params: dict[str, torch.Tensor], rollouts: Rollouts, plan: AdaptationPlan, seed: int
) -> dict[str, float]:
    """What the gates do on a group of tasks; docs/figures.md defines the numbers.

    Args:
        policy: of any kind.
        params: θ.
        rollouts: the group's episodes, sampled with θ.
        plan: how they were sampled.
        seed: of the probe observations.

    Returns:
        `gates/<layer>/<name>` -> value after the last update; nothing for a plain policy
    """
    if not policy.architecture.nm_gate:
        return {}
    count = rollouts.episodes[0].mask.shape[0]
    probe = torch.from_numpy(recordings.draw_probe(seed, rollouts, list(range(count)))).expand(count, -1, -1)
    records = [recordings.recorded(policy, adapted, probe) for _, adapted in replay(policy, params, rollouts, plan)]
    curves = {}
    for layer in policy.layer_names:
        for name, value in shares(np.stack([record[f"{layer}.gates"] for record in records], axis=1)).items():
            if value is not None:
                # Of the updates' flips, those of the first.
                curves[f"gates/{layer}/{name}"] = float(np.ravel(value)[0 if name == "flips_between_steps" else -1])
    return curves
