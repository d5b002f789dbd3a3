"""Returns after each adaptation step, with confidence intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from rl import adaptation, streams
from rl.rollout import update_on


class Summary(NamedTuple):
    """Mean and half-width of its 95% confidence interval."""

    mean: float
    half_width: float


def summarize(returns):
    """Mean return and its 95% Student-t interval, with every episode a sample.

    Args:
        returns: array of any shape, one entry an episode.

    Returns:
        `Summary`; the half-width is 0 for fewer than two episodes.
    """
    values = np.asarray(returns, np.float64).ravel()
    if values.size < 2:
        return Summary(float(values.mean()), 0.0)
    error = values.std(ddof=1) / np.sqrt(values.size)
    return Summary(float(values.mean()), float(stats.t.ppf(0.975, values.size - 1) * error))


def evaluate(parts, sampler, params, iteration, num_tasks, split="test"):
    """Adapt to tasks step by step, each on fresh episodes of the current policy.

    Args:
        parts: `rl.build.Parts`.
        sampler: `rl.sampler.Sampler`.
        params: θ.
        iteration: names the random streams.
        num_tasks, split: which tasks to draw.

    Returns:
        (tasks, `rl.rollout.Phases` with U + 1 phases)
    """
    tasks = parts.tasks(num_tasks, split, iteration, streams.EVALUATE)
    phases = sampler.sample(params, tasks, parts.evaluation(), parts.origin(iteration, streams.EVALUATE))
    return tasks, phases


def replay(policy, params, phases, sampling):
    """The weights and contexts before each update and after the last, recomputed from what was sampled.

    Yields:
        (`Episodes`, the `Adapted` that sampled them) for each of the U + 1 phases
    """
    adapted = adaptation.unadapted(policy, params, phases.episodes[0].mask.shape[0])
    yield phases.episodes[0], adapted
    for update in range(1, len(phases.episodes)):
        adapted, _, _ = update_on(policy, adapted, phases.episodes[update - 1], sampling, update)
        yield phases.episodes[update], adapted
