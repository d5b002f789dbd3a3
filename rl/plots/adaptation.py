"""Adaptation: return (and success rate) against the number of inner updates, with intervals over tasks or seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from rl.evaluation import intervals, runs, statistics
from rl.plots import style
from rl.plots.curves import RETURN, SUCCESS

Measured = Sequence[Float[np.ndarray, "K updates"]]  # means over the episodes of each task, one array an evaluation


def adaptation(folders: Sequence[Path], output: Path, group_by: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Draw evaluations: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: evaluations of one environment.
        output: path of the files without suffix.
        group_by: names of options by which evaluations are separated besides those that decide the result.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    found = [runs.read_evaluation(folder) for folder in folders]
    environment = runs.same_environment(found)
    groups = runs.grouped(found, group_by)
    drawn: dict[str, dict[str, Measured]] = {
        RETURN: {label: [one.returns.mean(axis=2) for one in members] for label, members in groups.items()}
    }
    if all(evaluation.success is not None for evaluation in found):
        drawn[SUCCESS] = {
            label: [one.success for one in members if one.success is not None] for label, members in groups.items()
        }
    tables = [
        table(metric, group).assign(environment=environment, group=label, metric=metric)
        for metric, measured in drawn.items()
        for label, group in measured.items()
    ]
    columns = ["environment", "group", "evaluations", "tasks", "metric", "updates", "value", "low_95", "high_95"]
    lines = [
        f"{environment}, {label}: {len(members)} evaluation(s), interval over {spread(len(members))}"
        for label, members in groups.items()
    ]
    files = style.save(draw(environment, drawn), output)
    return [*files, style.save_frame(output, pd.concat(tables)[columns])], lines


def spread(evaluations: int) -> str:
    """What the interval of a number of evaluations is over."""
    return "seeds" if evaluations > 1 else "tasks; one seed: no interval over seeds can be given"


def mean_and_interval(metric: str, group: Measured) -> intervals.Interval:
    """The mean and its interval after each number of updates: of one evaluation over tasks, as test.py prints it; of
    several over seeds, each with its mean over tasks.
    """
    if len(group) == 1:
        return (intervals.rate if metric == SUCCESS else intervals.mean)(group[0])
    means = np.stack([values.mean(axis=0) for values in group])
    if metric == SUCCESS and len(means) < statistics.FEWEST:
        return intervals.rate(means)
    value, interval = statistics.estimate(means)
    return intervals.Interval(value, *(interval or np.full((2, len(value)), np.nan)))


def table(metric: str, group: Measured) -> pd.DataFrame:
    """The numbers of the CSV file for one group."""
    mean, low, high = mean_and_interval(metric, group)
    numbers = {"updates": np.arange(len(mean)), "value": mean, "low_95": low, "high_95": high}
    return pd.DataFrame(numbers).assign(evaluations=len(group), tasks=sum(map(len, group)))


@style.printed
def draw(environment: str, drawn: dict[str, dict[str, Measured]]) -> Figure:
    """The figure: a panel a metric, a line a group's mean with its interval; of a single group also its tasks, thin.

    Args:
        environment: for the title.
        drawn: metric -> label of the group -> what was measured.
    """
    figure, axes = style.panels(1, len(drawn))
    for panel, (metric, groups) in zip(axes[0], drawn.items(), strict=True):
        for place, ((label, group), colour) in enumerate(zip(groups.items(), style.colours(), strict=False)):
            mean, low, high = mean_and_interval(metric, group)
            if len(groups) == 1:
                tasks = np.concatenate(group)
                panel.plot(np.arange(len(mean)), tasks.T, color=style.GREY, linewidth=0.4, alpha=0.35)
                panel.plot([], [], color=style.GREY, linewidth=0.6, label=f"each of {len(tasks)} tasks")
            # Groups stand side by side, so that their intervals can be read.
            updates = np.arange(len(mean)) + 0.06 * (place - (len(groups) - 1) / 2)
            over = f"{len(group)} seeds" if len(group) > 1 else f"{len(group[0])} tasks"
            panel.errorbar(updates, mean, yerr=[mean - low, high - mean], color=colour, marker="o", capsize=2,
                           zorder=3, label=f"{label} ({over})")  # fmt: skip
        if metric == SUCCESS:
            panel.set_ylim(-0.02, 1.02)
        panel.set(title=environment, xlabel="inner updates", ylabel=f"{metric}\nmean, 95% interval")
        style.whole_numbers(panel.xaxis)
    style.legend_below(figure)
    return figure
