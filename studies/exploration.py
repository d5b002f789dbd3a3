"""What policies find before they adapt, and what they make of it: a part of an experiment's section."""

from typing import Any

import numpy as np
from estimates import bullets, grid, in_words
from jaxtyping import Bool
from table import Experiment, Method

from rl.evaluation.comparisons import UNCLEAR, Difference, level, verdicts


def found_before(run: dict[str, Any]) -> Bool[np.ndarray, " K"]:
    """Whether an episode before any update, from which alone the update is made, solves a test task."""
    return np.array(run["test"]["success"][0]) > 0


def share_found(run: dict[str, Any]) -> float:
    """The share of a run's test tasks that are found before any update."""
    return float(found_before(run).mean())


def success(run: dict[str, Any], of_found: bool, updates: int) -> float | None:
    """A run's success rate after a number of updates, of the test tasks that were found or of the others, if any."""
    rates = np.array(run["test"]["success"][updates])[found_before(run) == of_found]
    return float(rates.mean()) if len(rates) else None


def exploration(row: Experiment, found: dict[str, dict[int, dict[str, Any]]], methods: dict[str, Method]) -> list[str]:
    """The table of tasks that were found before the update, if the environment reports success."""
    if not all("success" in run["test"] for runs in found.values() for run in runs.values()):
        return []
    baseline = found.get(row.baseline, {})
    apart = {
        method: Difference.between(runs, baseline, share_found)
        for method, runs in found.items()
        if method != row.baseline
    }
    rows = []
    for method, runs in found.items():
        runs = runs.values()
        cells = [methods[method].title, level([share_found(run) for run in runs]), str(apart.get(method, ""))]
        for of_found in (True, False):
            cells += [level([success(run, of_found, updates) for run in runs]) for updates in (1, -1)]
        rows.append(cells)
    titles = {method: methods[method].title for method in apart}
    phrases = in_words(verdicts(apart), apart, titles, ("more", "fewer", UNCLEAR))
    head = [
        "method", "tasks found", "minus the baseline's", "their success rate after 1 update", "after the last update",
        "the others' after 1 update", "after the last update",
    ]  # fmt: skip
    return [
        "A task is found if one of the episodes before the update, from which the update is made, succeeds.",
        *bullets(f"Tasks found, compared with {methods[row.baseline].title}:", phrases),
        *grid(head, rows),
    ]
