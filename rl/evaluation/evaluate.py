"""Returns and successes after each adaptation step."""

from typing import NamedTuple

import numpy as np

from rl import streams
from rl.algorithm import inner_loop
from rl.evaluation import intervals
from rl.sampling.rollout import update_on


class Summary(NamedTuple):
    """Mean and half-width of its 95% confidence interval."""

    mean: float
    half_width: float


def summarize(returns):
    """Mean return and its 95% Student-t interval with every episode a sample, as TensorBoard's published tags have it.

    Args:
        returns: array of any shape, one entry an episode.

    Returns:
        `Summary`; the half-width is 0 for fewer than two episodes.
    """
    values = np.asarray(returns, np.float64).ravel()
    return Summary(float(values.mean()), float(np.nan_to_num(intervals.half_width(values))))


def successes(episodes):
    """Where the environment tells success: "any" (at some step) and "final" (at the last step taken), bool [K, E].

    Returns:
        A dict of the two, or None where the environment does not tell.
    """
    if "success" not in episodes.infos:
        return None
    success = episodes.infos["success"].astype(bool)
    last = episodes.mask.sum(axis=1).astype(np.int64) - 1
    return {"any": success.any(axis=1), "final": np.take_along_axis(success, last[:, None], axis=1)[:, 0]}


def by_class(tasks):
    """Where tasks are of several classes: class -> indices of its tasks; else nothing."""
    classes = {}
    for number, task in enumerate(tasks):
        classes.setdefault(task.get("env_name"), []).append(number)
    return classes if len(classes) > 1 else {}


def evaluate(parts, sampler, params, iteration, num_tasks, split="test", intervention=None):
    """Adapt to tasks step by step, each on fresh episodes of the current policy.

    Args:
        parts: `rl.experiment.build.Parts`.
        sampler: `rl.sampling.worker_pool.Sampler`.
        params: θ.
        iteration: names the random streams.
        num_tasks, split: which tasks to draw.
        intervention: a `rl.sampling.interventions.Intervention` to try as well, or None.

    Returns:
        (tasks, `rl.sampling.rollout.Phases` with U + 1 phases)
    """
    tasks = parts.tasks(num_tasks, split, iteration, streams.EVALUATE)
    sampling = parts.evaluation()._replace(intervention=intervention)
    phases = sampler.sample(params, tasks, sampling, parts.origin(iteration, streams.EVALUATE))
    return tasks, phases


def replay(policy, params, phases, sampling):
    """The weights and contexts before each update and after the last, recomputed from what was sampled.

    Yields:
        (`Episodes`, the `Adapted` that sampled them) for each of the U + 1 phases
    """
    adapted = inner_loop.unadapted(policy, params, phases.episodes[0].mask.shape[0])
    yield phases.episodes[0], adapted
    for update in range(1, len(phases.episodes)):
        adapted, _, _ = update_on(policy, adapted, phases.episodes[update - 1], sampling, update)
        yield phases.episodes[update], adapted
