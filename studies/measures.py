"""What is measured of the runs in results/, which studies/evaluate.py writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import FROZEN
from jaxtyping import Bool, Float
from table import Experiment, Method

from rl.evaluation.comparisons import Difference
from rl.files import read_json

Run = dict[str, Any]  # the content of a JSON file
Found = dict[str, dict[int, Run]]  # method -> seed -> results
Methods = dict[str, Method]
Measure = Callable[[Run], float | None]

WINDOW = 10  # iterations that a point of a learning curve is the mean of
LONG = 20  # those of which the best and the last are compared
CHECKPOINTS = 10  # the published code evaluates every tenth iteration, and its scripts name policies of such ones


def load(row: Experiment, folder: Path) -> Found:
    """The results of an experiment that are there.

    Raises:
        UserError: one cannot be read.
    """
    found = {}
    for method in row.methods:
        runs = {seed: Path(folder, row.name, method, f"{seed}.json") for seed in row.seeds}
        runs = {seed: read_json(path) for seed, path in runs.items() if path.is_file()}
        if runs:
            found[method] = runs
    return found


def after(run: Run, updates: int = -1, kind: str = "returns", part: str = "test") -> float:
    """A run's mean over test tasks after a number of updates."""
    return float(np.mean(run[part][kind][updates]))


def episodes(runs: dict[int, Run]) -> set[int | None]:
    """From how many episodes of a test task a method's policies were evaluated."""
    return {run.get("test_episodes") for run in runs.values()}


def found_before(run: Run) -> Bool[np.ndarray, " K"]:
    """Whether an episode before any update, from which alone the update is made, solves a test task."""
    return np.array(run["test"]["success"][0]) > 0


def share_found(run: Run) -> float:
    """The share of a run's test tasks that are found before any update."""
    return float(found_before(run).mean())


def success(run: Run, of_found: bool, updates: int) -> float | None:
    """A run's success rate after a number of updates, of the test tasks that were found or of the others, if any."""
    rates = np.array(run["test"]["success"][updates])[found_before(run) == of_found]
    return float(rates.mean()) if len(rates) else None


def accepted(run: Run, share: float = 1) -> float:
    """The share of outer steps that the line search accepted (the others leave the policy as it was), in the last
    `share` of a run's iterations, at least in one.
    """
    return float(np.mean([bool(kl) for kl in _last(run["curves"]["kl"], share)]))


def changed(check: str) -> Measure:
    """By how much a check of studies/evaluate.py changes the return after the last update; None where there is none."""

    def measure(run: Run) -> float | None:
        checks = run.get("checks", {})
        return float(np.mean(checks[check]["returns"][-1])) - after(run) if check in checks else None

    return measure


def halved(updates: int, kind: str = "returns") -> Measure:
    """As `after`, with the rate halved after the first update; None where that was not evaluated."""
    return lambda run: after(run, updates, kind, "halved") if "halved" in run else None


def checkpoints(run: Run) -> Float[np.ndarray, "N window"]:
    """Returns after the update on the training tasks: of the policy after iterations 0, 10, 20, …, and of the nine that
    come after each.

    The return that training logs in an iteration is of the policy that the iteration before it left.
    """
    curve = np.array(run["curves"]["after_update"][1:], np.float64)
    count = len(curve) // CHECKPOINTS
    return curve[: count * CHECKPOINTS].reshape(count, CHECKPOINTS)


def best_checkpoint(run: Run) -> float:
    """The highest return of a tenth policy."""
    return float(checkpoints(run)[:, 0].max())


def after_the_best(run: Run) -> float:
    """The mean return of the nine policies that come after the best tenth one: they had no part in the choice."""
    windows = checkpoints(run)
    return float(windows[windows[:, 0].argmax(), 1:].mean())


def reached(run: Run, milestone: float) -> int | None:
    """The first iteration up to which the return after the update, the mean of `WINDOW` iterations, is so high."""
    means = _means(run, WINDOW)
    high = np.flatnonzero(means >= milestone)
    return int(high[0]) + WINDOW - 1 if len(high) else None


def training(run: Run) -> float:
    """The mean return after the update in the last tenth of training: of all methods from as many episodes."""
    return float(np.mean(_last(run["curves"]["after_update"], 0.1)))


def kept(run: Run) -> float:
    """The return after the update, the mean of `LONG` iterations, at the end of training: the share that it is of the
    highest such mean.
    """
    means = _means(run, LONG)
    return float(means[-1] / means.max())


def _last(curve: Sequence[float], share: float) -> Sequence[float]:
    """The last share of a curve's iterations, at least one."""
    return curve[-max(1, round(share * len(curve))) :]


def _means(run: Run, window: int) -> Float[np.ndarray, " means"]:
    """The means of the return after the update over all so many successive iterations; none where there are fewer."""
    curve = np.array(run["curves"]["after_update"], np.float64)
    return np.convolve(curve, np.full(window, 1 / window), "valid") if len(curve) >= window else curve[:0]


# By the names that hand-written text has for them (studies/words.py).
MEASURES: dict[str, Measure] = {
    "return_1": lambda run: after(run, 1),
    "return_2": lambda run: after(run, 2),
    "return_last": after,
    "training": training,
    "kept": kept,
    "success_0": lambda run: after(run, 0, "success"),
    "success_1": lambda run: after(run, 1, "success"),
    "success_2": lambda run: after(run, 2, "success"),
    "success_last": lambda run: after(run, -1, "success"),
    "halved_2": halved(2),
    "halved_last": halved(-1),
    "halved_success_2": halved(2, "success"),
    "found": share_found,
    "found_learnt": lambda run: success(run, True, 1),
    "missed_learnt_last": lambda run: success(run, False, -1),
    "unanimous": lambda run: float(np.isin(run["test"]["success"][1], (0, 1)).mean()),
    "accepted": accepted,
    "accepted_at_the_end": lambda run: accepted(run, 0.1),
    "cka": lambda run: list(run["similarity"].values())[-1]["cka"] if "similarity" in run else None,
    "frozen": changed(FROZEN),
    "ones": changed("all gates 1"),
    "gates_swapped": changed("gates of another task"),
    "gates_alone": changed("context at the gates alone"),
    "own": lambda run: run["exact"]["own"][-1],
    "coverage": lambda run: run["exact"]["coverage"][-1],
    "handed": lambda run: run["exact"]["handed"][-1],
    "step_part": lambda run: run["exact"]["steps"]["part"],
}


def difference(found: Found, one: str, other: str, measure: Measure) -> Difference:
    """A method's measure minus another's, paired by seed."""
    return Difference.between(found.get(one, {}), found.get(other, {}), measure)


def effect(runs: dict[int, Run], measure: Measure) -> Difference:
    """A measure that is a difference already, of the runs that have it."""
    values = [measure(run) for run in runs.values()]
    return Difference(tuple(value for value in values if value is not None))


def primary(row: Experiment, found: Found) -> Difference:
    """The primary endpoint: the return after one update of what the paper proposes, minus the baseline's. It has no
    values where the two are the same.
    """
    if row.proposed == row.baseline:
        return Difference(())
    return difference(found, row.proposed, row.baseline, MEASURES["return_1"])
