"""A rank's share of sampling, and what is brought together of all shares.

Episodes stay where they were sampled; only summaries travel, and whole rollouts where they are to be written.
"""

from types import TracebackType

import numpy as np
from torch import Tensor

from rl.evaluation.evaluate import Summary
from rl.ranks import Ranks
from rl.sampling.episodes import Episodes
from rl.sampling.jobs import Sampler
from rl.sampling.rollout import AdaptationPlan, Rollouts, StreamName, Tasks

Arrays = dict[str, np.ndarray]


class Shares:
    """This rank's sampler, which is given its share of the tasks."""

    def __init__(self, sampler: Sampler, ranks: Ranks):
        self.sampler, self.ranks = sampler, ranks

    def sample(
        self, params: dict[str, Tensor], tasks: Tasks, plan: AdaptationPlan, stream: StreamName, unit: int
    ) -> Rollouts | None:
        """Sample and adapt on this rank's share of the tasks; None where it has none.

        Args:
            params: θ.
            tasks: those of all ranks.
            stream: of the first of them.
            unit: how many tasks are dealt together.
        """
        own = self.ranks.share(len(tasks), unit)
        if own.start == own.stop:
            return None
        stream = stream._replace(first_task=stream.first_task + own.start)
        return self.sampler.sample(params, tasks[own], plan, stream)

    def summaries(self, rollouts: Rollouts | None) -> tuple[Summary, ...]:
        """At rank 0 a `Summary` of all tasks after each number of updates; nothing elsewhere."""
        own = None if rollouts is None else tuple(map(Summary.of, rollouts.episodes))
        if self.ranks.size == 1:
            return own or ()
        found = self.ranks.gather(None if own is None else _flat([_summary_arrays(summary) for summary in own]))
        parts = [[_summary(arrays) for arrays in _nested(content)] for content in found]
        return tuple(Summary.concatenate(same) for same in zip(*parts, strict=True))

    def rollouts(self, rollouts: Rollouts | None) -> Rollouts | None:
        """At rank 0 those of all tasks; None elsewhere."""
        if self.ranks.size == 1:
            return rollouts
        found = self.ranks.gather(None if rollouts is None else _rollout_arrays(rollouts))
        return Rollouts.concatenate([_rollouts(arrays) for arrays in found]) if found else None

    def restarts(self) -> int:
        """At rank 0 how often workers were replaced on all ranks."""
        return sum(int(found["restarts"]) for found in self.ranks.gather({"restarts": np.array(self.sampler.restarts)}))

    def __enter__(self) -> "Shares":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.sampler.close()


def _flat(entries: list[Arrays]) -> Arrays:
    """A list of dicts as one dict."""
    return {f"{number} {name}": array for number, arrays in enumerate(entries) for name, array in arrays.items()}


def _nested(arrays: Arrays) -> list[Arrays]:
    """The opposite of `_flat`."""
    entries: dict[str, Arrays] = {}
    for label, array in arrays.items():
        number, _, name = label.partition(" ")
        entries.setdefault(number, {})[name] = array
    return [entries[str(number)] for number in range(len(entries))]


def _summary_arrays(summary: Summary) -> Arrays:
    return {"returns": summary.returns, "num_steps": summary.num_steps, "actions": summary.actions} | summary.extras


def _summary(arrays: Arrays) -> Summary:
    return Summary(arrays.pop("returns"), arrays.pop("num_steps"), arrays.pop("actions"), arrays)


def _rollout_arrays(rollouts: Rollouts) -> Arrays:
    every = [
        {"observations": part.observations, "actions": part.actions, "rewards": part.rewards, "mask": part.mask}
        | {f"info.{name}": values for name, values in part.infos.items()}
        for part in (*rollouts.episodes, *rollouts.intervened)
    ]
    facts = {"inner_losses": rollouts.inner_losses, "ridge_retries": np.array(rollouts.ridge_retries)}
    return _flat([facts, *every])


def _rollouts(arrays: Arrays) -> Rollouts:
    facts, *every = _nested(arrays)
    episodes = tuple(
        Episodes(
            part["observations"],
            part["actions"],
            part["rewards"],
            part["mask"],
            {name.removeprefix("info."): values for name, values in part.items() if name.startswith("info.")},
        )
        for part in every
    )
    count = len(facts["inner_losses"]) + 1
    return Rollouts(episodes[:count], facts["inner_losses"], int(facts["ridge_retries"]), episodes[count:])
