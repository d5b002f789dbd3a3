"""What gates do, in numbers. Axes: D tasks, U + 1 adaptation steps, N observations (the same for all), H units."""

import itertools

import numpy as np

SATURATED = 0.99  # |g| above this counts as saturated


def shares(gates):
    """Shares of a layer's gates.

    A gate counts as positive at 0, as sign(0) = +1.

    Args:
        gates: [D, U + 1, N, H] in [−1, 1].

    Returns:
        dict of
            negative: [U + 1] share of gates below 0;
            saturated: [U + 1] share of gates with |g| > 0.99;
            constant: share of units whose gate has one sign for all tasks, steps and observations;
            flips_between_tasks: [U + 1] share of (unit, observation) whose sign differs between two tasks, mean over
                all pairs of tasks; None for a single task;
            flips_between_steps: [U] share of (task, unit, observation) whose sign differs from the step before.
    """
    negative = gates < 0
    always, never = negative.all(axis=(0, 1, 2)), ~negative.any(axis=(0, 1, 2))
    pairs = [(negative[i] != negative[j]).mean(axis=(1, 2)) for i, j in itertools.combinations(range(len(gates)), 2)]
    return {
        "negative": negative.mean(axis=(0, 2, 3)),
        "saturated": (np.abs(gates) > SATURATED).mean(axis=(0, 2, 3)),
        "constant": float((always | never).mean()),
        "flips_between_tasks": np.mean(pairs, axis=0) if pairs else None,
        "flips_between_steps": (negative[:, 1:] != negative[:, :-1]).mean(axis=(0, 2, 3)),
    }
