"""Returns and successes after each adaptation step."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped

from rl import envs
from rl.algorithm import inner_loop
from rl.evaluation import intervals
from rl.policies.mlp import MLPPolicy
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import AdaptationPlan, Rollouts, update_on


class Summary(NamedTuple):
    """What is logged and said of K tasks' episodes after some number of updates.

    Attributes:
        returns: undiscounted.
        num_steps: steps taken.
        actions: sums over steps of the mean over action dimensions.
        extras: what else the environment reports: "any" and "final", as from `successes`; "unstable", how often a
            simulation was.
    """

    returns: Float[np.ndarray, "K E"]
    num_steps: Int[np.ndarray, " K"]
    actions: Float[np.ndarray, " K"]
    extras: dict[str, Shaped[np.ndarray, "K *"]]

    @classmethod
    def of(cls, episodes: Episodes) -> "Summary":
        """The summary of `Episodes`."""
        mask = episodes.mask
        actions = episodes.actions.reshape(*mask.shape, -1).mean(axis=-1, dtype=np.float64)
        extras = successes(episodes) or {}
        if "unstable" in episodes.infos:
            extras["unstable"] = episodes.infos["unstable"].sum(axis=(1, 2), dtype=np.int64)
        return cls(episodes.returns, np.count_nonzero(mask, axis=(1, 2)), actions.sum(axis=(1, 2)), extras)

    @classmethod
    def concatenate(cls, parts: Sequence["Summary"]) -> "Summary":
        """Join groups of tasks along K; what an environment reports of some tasks alone is 0 for the others."""
        like = {name: values for part in parts for name, values in part.extras.items()}
        extras = {
            name: np.concatenate(
                [part.extras.get(name, np.zeros(part.returns.shape[: values.ndim], values.dtype)) for part in parts]
            )
            for name, values in like.items()
        }
        returns, num_steps, actions = (np.concatenate(same) for same in zip(*(part[:3] for part in parts), strict=True))
        return cls(returns, num_steps, actions, extras)

    @property
    def steps(self) -> int:
        """The number of environment steps taken, over all episodes."""
        return int(self.num_steps.sum())

    @property
    def mean_action(self) -> float:
        """The mean over all steps and action dimensions of what was done."""
        return float(self.actions.sum() / self.num_steps.sum())

    @property
    def success(self) -> dict[str, Bool[np.ndarray, "K E"]] | None:
        """`successes` of the episodes."""
        return {name: self.extras[name] for name in envs.CRITERIA} if "any" in self.extras else None


class Evaluated(NamedTuple):
    """Adaptation to tasks.

    Attributes:
        tasks: K of them.
        summaries: of what was sampled after 0, 1, 2, … updates.
        seconds: how long that took.
        gates: what `rl.evaluation.gates.gate_curves` made of them.
    """

    tasks: list[dict[str, Any]]
    summaries: tuple[Summary, ...]
    seconds: float
    gates: dict[str, float] = {}


class Mean(NamedTuple):
    """Mean and half-width of its 95% confidence interval."""

    mean: float
    half_width: float


def mean_over_episodes(returns: intervals.Numbers) -> Mean:
    """Mean return and its 95% Student-t interval with every episode a sample, as the published tags have it.

    The half-width is 0 for fewer than two episodes.
    """
    values = np.asarray(returns, np.float64).ravel()
    return Mean(float(values.mean()), float(np.nan_to_num(intervals.half_width(values))))


def successes(episodes: Episodes) -> dict[str, Bool[np.ndarray, "K E"]] | None:
    """Which episodes succeed, "any" (at any step) and "final" (at the last step taken); None if the environment does
    not report success.
    """
    if "success" not in episodes.infos:
        return None
    success = episodes.infos["success"].astype(bool)
    last = episodes.mask.sum(axis=1).astype(np.int64) - 1
    return {"any": np.asarray(success.any(axis=1)), "final": np.take_along_axis(success, last[:, None], axis=1)[:, 0]}


def by_class(tasks: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Where tasks are of several classes: class -> indices of its tasks; else nothing."""
    classes: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        if (name := envs.task_class(task)) is not None:
            classes.setdefault(name, []).append(number)
    return classes if len(classes) > 1 else {}


def replay(
    policy: MLPPolicy, params: dict[str, torch.Tensor], rollouts: Rollouts, plan: AdaptationPlan
) -> Iterator[tuple[Episodes, inner_loop.Adapted]]:
    """The weights and contexts before each update and after the last, recomputed from what was sampled: the episodes
    after 0, 1, … updates with the policies that sampled them.
    """
    adapted = inner_loop.unadapted(policy, params, rollouts.episodes[0].mask.shape[0])
    yield rollouts.episodes[0], adapted
    for update in range(1, len(rollouts.episodes)):
        adapted, _, _ = update_on(policy, adapted, rollouts.episodes[update - 1], plan, update)
        yield rollouts.episodes[update], adapted
