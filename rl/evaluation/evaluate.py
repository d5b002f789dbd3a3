"""Returns and successes after each adaptation step."""

import time
from typing import NamedTuple

import numpy as np

from rl.algorithm import inner_loop
from rl.evaluation import intervals
from rl.sampling.rollout import Phases, update_on


class Evaluated(NamedTuple):
    """Adaptation to tasks.

    Attributes:
        tasks: list of K tasks.
        phases: `Phases` with U + 1 of them: what was sampled after 0, 1, 2, … updates.
        seconds: how long that took.
        gates: `rl.evaluation.recordings.gate_curves`, where they were asked for.
    """

    tasks: list
    phases: Phases
    seconds: float
    gates: dict = {}


class Mean(NamedTuple):
    """Mean and half-width of its 95% confidence interval."""

    mean: float
    half_width: float


def evaluate(sampler, params, tasks, sampling, origin):
    """Adapt to tasks step by step, each on fresh episodes of the policy reached.

    Args:
        sampler: `rl.sampling.worker_pool.WorkerPool`.
        params: θ.
        tasks: list of K tasks.
        sampling: `rl.sampling.rollout.Sampling` with U learning rates, and an intervention to try as well, if any.
        origin: `rl.sampling.rollout.Origin`.

    Returns:
        `Evaluated` with U + 1 phases
    """
    started = time.perf_counter()
    phases = sampler.sample(params, tasks, sampling, origin)
    return Evaluated(tasks, phases, time.perf_counter() - started)


def mean_over_episodes(returns):
    """Mean return and its 95% Student-t interval with every episode a sample, as TensorBoard's published tags have it.

    Args:
        returns: array of any shape, one entry an episode.

    Returns:
        `Mean`; the half-width is 0 for fewer than two episodes.
    """
    values = np.asarray(returns, np.float64).ravel()
    return Mean(float(values.mean()), float(np.nan_to_num(intervals.half_width(values))))


def successes(episodes):
    """Where the environment tells success: "any" (at any step) and "final" (at the last step taken), bool [K, E].

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
