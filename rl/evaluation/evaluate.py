"""Returns and successes after each adaptation step."""

from typing import NamedTuple

import numpy as np

from rl import envs
from rl.algorithm import inner_loop
from rl.evaluation import intervals
from rl.sampling.rollout import update_on


class Summary(NamedTuple):
    """What is logged and said of K tasks' episodes of one phase.

    Attributes:
        returns: float64 [K, E], undiscounted.
        num_steps: int64 [K], steps taken.
        actions: float64 [K], what was done: sums over steps of the mean over action dimensions.
        told: what else the environment tells: "any" and "final", bool [K, E], as from `successes`; "unstable", int64
            [K], how often a simulation was.
    """

    returns: np.ndarray
    num_steps: np.ndarray
    actions: np.ndarray
    told: dict[str, np.ndarray]

    @classmethod
    def of(cls, episodes):
        """The summary of `Episodes`."""
        mask = episodes.mask
        actions = episodes.actions.reshape(*mask.shape, -1).mean(axis=-1, dtype=np.float64)
        told = successes(episodes) or {}
        if "unstable" in episodes.infos:
            told["unstable"] = episodes.infos["unstable"].sum(axis=(1, 2), dtype=np.int64)
        return cls(episodes.returns, np.count_nonzero(mask, axis=(1, 2)), actions.sum(axis=(1, 2)), told)

    @classmethod
    def concatenate(cls, parts):
        """Join groups of tasks along K; what an environment tells of some tasks alone is 0 of the others."""
        like = {name: values for part in parts for name, values in part.told.items()}
        told = {
            name: np.concatenate(
                [part.told.get(name, np.zeros(part.returns.shape[: values.ndim], values.dtype)) for part in parts]
            )
            for name, values in like.items()
        }
        returns, num_steps, actions = (np.concatenate(same) for same in zip(*(part[:3] for part in parts), strict=True))
        return cls(returns, num_steps, actions, told)

    @property
    def steps(self):
        """The number of environment steps taken, over all episodes."""
        return int(self.num_steps.sum())

    @property
    def mean_action(self):
        """The mean over all steps and action dimensions of what was done."""
        return float(self.actions.sum() / self.num_steps.sum())

    @property
    def success(self):
        """`successes` of the episodes."""
        return {name: self.told[name] for name in ("any", "final")} if "any" in self.told else None


class Evaluated(NamedTuple):
    """Adaptation to tasks.

    Attributes:
        tasks: list of K tasks.
        summaries: tuple of U + 1 `Summary`: what was sampled after 0, 1, 2, … updates.
        seconds: how long that took.
        gates: `rl.evaluation.recordings.gate_curves`, where they were asked for.
    """

    tasks: list
    summaries: tuple[Summary, ...]
    seconds: float
    gates: dict = {}


class Mean(NamedTuple):
    """Mean and half-width of its 95% confidence interval."""

    mean: float
    half_width: float


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
        classes.setdefault(envs.task_class(task), []).append(number)
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
