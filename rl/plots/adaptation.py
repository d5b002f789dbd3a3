"""Adaptation: return (and success rate) against the number of inner updates, with intervals over tasks or seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rl.evaluation import comparisons, intervals, runs, statistics
from rl.evaluation.comparisons import Difference
from rl.evaluation.metric_names import RETURN, SUCCESS
from rl.plots import style
from rl.plots.curves import in_words

Means = Float[np.ndarray, "K updates"]  # over the episodes of each task
Measured = Mapping[int, Means]  # seed -> of its evaluation


class Measurements(NamedTuple):
    """What evaluations of one environment measured.

    Attributes:
        environment: which.
        metrics: return, and the success rate where all have it -> label of a group -> what was measured.
    """

    environment: str
    metrics: dict[str, dict[str, Measured]]

    @property
    def groups(self) -> dict[str, Measured]:
        """The returns, group by group."""
        return self.metrics[RETURN]

    def differences(self, updates: Sequence[int]) -> dict[tuple[str, str, int], Difference]:
        """Every other group minus the first one, paired by seed: (metric, group, number of updates) -> difference."""
        found = {}
        for metric, groups in self.metrics.items():
            (_, first), *others = groups.items()
            for count in updates:
                for label, group in others:
                    pair = [{seed: means[:, count].mean() for seed, means in one.items()} for one in (group, first)]
                    found[metric, label, count] = Difference.between(pair[0], pair[1])
        return found


def measurements(folders: Sequence[Path], group_by: Sequence[str] = (), labels: Sequence[str] = ()) -> Measurements:
    """Read evaluations of one environment, in groups.

    Args:
        folders: evaluations.
        group_by: names of options by which evaluations are separated besides those that decide the result.
        labels: names of the groups instead of their own.

    Raises:
        UserError: bad input.
    """
    found = [runs.read_evaluation(folder) for folder in folders]
    environment = runs.same_environment(found)
    grouped = runs.grouped(found, group_by)
    names = runs.names(list(grouped), labels)
    groups = {names[label]: {one.seed: one for one in members} for label, members in grouped.items()}
    metrics: dict[str, dict[str, Measured]] = {
        RETURN: {
            label: {seed: one.returns.mean(axis=2) for seed, one in members.items()}
            for label, members in groups.items()
        }
    }
    if all(evaluation.success is not None for evaluation in found):
        metrics[SUCCESS] = {
            label: {seed: one.success for seed, one in members.items() if one.success is not None}
            for label, members in groups.items()
        }
    return Measurements(environment, metrics)


def adaptation(
    folders: Sequence[Path],
    output: Path,
    group_by: Sequence[str] = (),
    labels: Sequence[str] = (),
    frame: style.Frame = style.OWN,
) -> tuple[list[Path], list[str]]:
    """Draw evaluations: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders, group_by, labels: as `measurements` takes them.
        output: path of the files without suffix.
        frame: title, size and limits.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    measured = measurements(folders, group_by, labels)
    tables = [
        table(metric, group).assign(environment=measured.environment, group=label, metric=metric)
        for metric, groups in measured.metrics.items()
        for label, group in groups.items()
    ]
    columns = ["environment", "group", "evaluations", "tasks", "metric", "updates", "value", "low_95", "high_95"]
    lines = [
        f"{measured.environment}, {label}: {len(group)} evaluation(s), interval over {spread(len(group))}"
        for label, group in measured.groups.items()
    ]
    files = style.save(draw(measured, frame), output, frame.size)
    return [*files, style.save_frame(output, pd.concat(tables)[columns])], lines + compared(measured)


def compared(measured: Measurements) -> list[str]:
    """Each group beside the first one after the last update, in words, where they share seeds."""
    first, last = next(iter(measured.groups)), min(one.shape[1] for group in measured.groups.values()
                                                  for one in group.values()) - 1  # fmt: skip
    differences = {key: found for key, found in measured.differences([last]).items() if len(found.values) > 1}
    adjusted = comparisons.adjusted(differences)
    return [
        f"  {metric}, after {last} update(s): {in_words(label, first, difference, adjusted.get((metric, label, last)))}"
        for (metric, label, _), difference in differences.items()
    ]


def spread(evaluations: int) -> str:
    """What the interval of a number of evaluations is over."""
    return "seeds" if evaluations > 1 else "tasks; one seed: no interval over seeds can be given"


def mean_and_interval(metric: str, group: Measured) -> intervals.Interval:
    """The mean and its interval after each number of updates: of one evaluation over tasks, as test.py prints it; of
    several over seeds, each with its mean over tasks.
    """
    if len(group) == 1:
        return (intervals.rate if metric == SUCCESS else intervals.mean)(*group.values())
    means = over_tasks(group)
    if metric == SUCCESS and len(means) < statistics.FEWEST:
        return intervals.rate(means)
    value, interval = statistics.estimate(means)
    return intervals.Interval(value, *(interval or np.full((2, len(value)), np.nan)))


def over_tasks(group: Measured) -> Float[np.ndarray, "seeds updates"]:
    """Each seed's mean over its tasks."""
    return np.stack([values.mean(axis=0) for values in group.values()])


def table(metric: str, group: Measured) -> pd.DataFrame:
    """The numbers of the CSV file for one group."""
    mean, low, high = mean_and_interval(metric, group)
    numbers = {"updates": np.arange(len(mean)), "value": mean, "low_95": low, "high_95": high}
    return pd.DataFrame(numbers).assign(evaluations=len(group), tasks=sum(map(len, group.values())))


@style.printed
def draw(measured: Measurements, frame: style.Frame = style.OWN) -> Figure:
    """The figure: a panel a metric, a line a group's mean with its interval, of fewer than 5 seeds with each of them;
    of a single evaluation also its tasks, thin.
    """
    groups = measured.groups
    size = (frame.size[0] / len(measured.metrics), frame.size[1]) if frame.size else style.PANEL
    figure, axes = style.panels(1, len(measured.metrics), *size)
    only = [f"{label} ({over(group)})" for label, group in groups.items()] if len(groups) == 1 else []
    few = [1 < len(group) < statistics.FEWEST for group in groups.values()]
    known = "mean" if all(few) else f"mean, 95% interval{' of 5 seeds or more' * any(few)}"
    more: list[Artist] = []
    for panel, (metric, shown) in zip(axes[0], measured.metrics.items(), strict=True):
        for place, (label, group) in enumerate(shown.items()):
            # Groups stand side by side, so that their intervals can be read.
            aside = 0.6 * (place - (len(groups) - 1) / 2) / max(len(groups), 10)
            more += draw_group(panel, metric, group, style.look(place), aside, "" if only else label)
        limits = (-0.02, 1.02) if metric == SUCCESS else frame.ylim
        if limits:
            panel.set_ylim(limits)
        title = "\n".join([measured.environment, *only])
        panel.set(title=title, xlabel="inner updates", ylabel=f"{metric}\n{known}")
        style.whole_numbers(panel.xaxis)
    style.titled(figure, list(axes[0]), frame.title)
    style.legend_below(figure, *more)
    return figure


def over(group: Measured) -> str:
    """What a group's mean is over, in words."""
    count, what = (len(group), "seed") if len(group) > 1 else (len(next(iter(group.values()))), "task")
    return f"{count} {what}{'s' * (count > 1)}"


def draw_group(panel: Axes, metric: str, group: Measured, look: style.Look, aside: float, label: str) -> list[Artist]:
    """Draw a group `aside` of whole numbers of updates; without a label it is the only one. Further entries of the
    legend are returned.
    """
    mean, low, high = mean_and_interval(metric, group)
    updates, few = np.arange(len(mean)) + aside, 1 < len(group) < statistics.FEWEST
    bars = None if few else np.array([mean - low, high - mean])
    panel.errorbar(updates, mean, yerr=bars, **look.drawn, capsize=2, zorder=3,
                   label=f"{label} ({style.unbroken(over(group))})" if label else None)  # fmt: skip
    thin = over_tasks(group) if few else next(iter(group.values()))
    if not few and (label or len(group) > 1 or len(thin) == 1):
        return []
    colour = look.colour if label else style.GREY
    panel.plot(updates, thin.T, color=colour, linewidth=0.4, alpha=0.4 if few else 0.35)
    return [Line2D([], [], color=style.GREY, linewidth=0.6, label="one seed" if few else "one task")]
