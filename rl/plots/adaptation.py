"""Adaptation: return (and success rate) against the number of inner updates, with intervals over tasks or seeds."""

from typing import NamedTuple

import numpy as np

from rl.evaluation import intervals, runs, statistics
from rl.plots import style

COLUMNS = ("environment", "group", "evaluations", "tasks", "metric", "updates", "value", "low_95", "high_95")
RETURN, SUCCESS = "return of an episode (reward)", "success rate (any step)"


class Group(NamedTuple):
    """Evaluations that are shown together: label, and means over episodes [tasks, updates + 1] of each of them."""

    label: str
    evaluations: list


def adaptation(folders, output, group_by=()):
    """Draw evaluations: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: paths of evaluations of one environment.
        output: path of the files without suffix.
        group_by: names of options that tell groups apart besides those that decide the result.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    found = [runs.read_evaluation(folder) for folder in folders]
    environment = runs.same_environment(found)
    grouped = runs.grouped(found, group_by)
    measured = {RETURN: lambda evaluation: evaluation.returns.mean(axis=2)}
    if all("success_per_task" in evaluation.results for evaluation in found):
        measured[SUCCESS] = lambda evaluation: np.array(evaluation.results["success_per_task"]).T
    drawn = {
        metric: [Group(label, [measure(member) for member in members]) for label, members in grouped.items()]
        for metric, measure in measured.items()
    }
    rows = [row for metric, groups in drawn.items() for group in groups for row in table(environment, metric, group)]
    lines = [
        f"{environment}, {label}: {len(members)} evaluation(s), interval over {spread(members)}"
        for label, members in grouped.items()
    ]
    files = style.save(draw(environment, drawn), output)
    return [*files, style.save_table(output, COLUMNS, rows)], lines


def spread(members):
    """What a group's interval is over: seeds, of which there may be one alone."""
    return "seeds" if len(members) > 1 else "tasks; one seed: no interval over seeds can be given"


def mean_and_interval(metric, group):
    """The mean and its interval, an `Interval` [U + 1]: of one evaluation over tasks, as test.py prints it; of several
    over seeds, each with its mean over tasks.
    """
    if len(group.evaluations) == 1:
        return (intervals.rate if metric == SUCCESS else intervals.mean)(group.evaluations[0])
    means = np.stack([values.mean(axis=0) for values in group.evaluations])
    if metric == SUCCESS and len(means) < statistics.FEWEST:
        return intervals.rate(means)
    value, interval = statistics.estimate(means)
    return intervals.Interval(value, *(interval or np.full((2, len(value)), np.nan)))


def table(environment, metric, group):
    """The rows of the CSV file for one group."""
    tasks = sum(len(values) for values in group.evaluations)
    return [
        (environment, group.label, len(group.evaluations), tasks, metric, updates,
         *(None if np.isnan(number) else number for number in numbers))
        for updates, numbers in enumerate(zip(*mean_and_interval(metric, group), strict=True))
    ]  # fmt: skip


@style.printed
def draw(environment, drawn):
    """The figure: a panel a metric, a line a group's mean with its interval; of a single group also its tasks, thin.

    Args:
        environment: for the title.
        drawn: metric -> list of `Group`s.
    """
    figure, axes = style.panels(1, len(drawn))
    for panel, (metric, groups) in zip(axes[0], drawn.items(), strict=True):
        for place, (group, colour) in enumerate(zip(groups, style.colours(), strict=False)):
            mean, low, high = mean_and_interval(metric, group)
            if len(groups) == 1:
                tasks = np.concatenate(group.evaluations)
                panel.plot(np.arange(len(mean)), tasks.T, color=style.GREY, linewidth=0.4, alpha=0.35)
                panel.plot([], [], color=style.GREY, linewidth=0.6, label=f"each of {len(tasks)} tasks")
            # Groups stand side by side, so that their intervals can be read.
            updates = np.arange(len(mean)) + 0.06 * (place - (len(groups) - 1) / 2)
            count = len(group.evaluations)
            over = f"{count} seeds" if count > 1 else f"{len(group.evaluations[0])} tasks"
            panel.errorbar(updates, mean, yerr=[mean - low, high - mean], color=colour, marker="o", capsize=2,
                           zorder=3, label=f"{group.label} ({over})")  # fmt: skip
        if metric == SUCCESS:
            panel.set_ylim(-0.02, 1.02)
        panel.set_xlabel("inner updates")
        panel.set_ylabel(f"{metric}\nmean, 95% interval")
        panel.set_title(environment)
        style.whole_numbers(panel.xaxis)
    style.legend_below(figure)
    return figure
