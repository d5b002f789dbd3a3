"""Learning curves: a metric against the iteration, seeds summarized with their interval."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from rl.errors import UserError
from rl.evaluation import runs, statistics
from rl.evaluation.intervals import Interval, Numbers
from rl.evaluation.references import Reference, read_reference
from rl.plots import style

RETURN, SUCCESS = "return of an episode (reward)", "success rate (any step)"
# Name on the command line -> tag in progress.csv, label, axis. <k> is a number of updates.
METRICS = {
    "after_update": ("running_returns/after_update", "after the update", RETURN),
    "before_update": ("running_returns/before_update", "before the update", RETURN),
    "test/<k>": ("evaluation_rew/avg_rew {}", "test tasks, {} update(s)", RETURN),
    "success/<k>": ("evaluation_success/any {}", "test tasks, {} update(s)", SUCCESS),
}
COLUMNS = ["environment", "group", "seeds", "metric", "iteration", "steps", "value", "low_95", "high_95"]
SAMPLED = ["time/env_steps_per_second", "time/sampling"]  # their product are an iteration's environment steps
AXES = {"iterations": "meta-training iteration", "steps": "environment steps of meta-training"}


class Metric(NamedTuple):
    """A metric: its name on the command line, its tag in progress.csv, its label, the axis that it belongs to."""

    name: str
    tag: str
    label: str
    axis: str


class Curve(NamedTuple):
    """One metric of a group of runs, over the iterations that all of them have.

    Attributes:
        environment, group, metric: of what.
        summary: a row an iteration: `steps` (environment steps sampled for training up to and with it, the mean over
            seeds; NaN where a run has not logged them), `value`, `low_95`, `high_95` (NaN where the seeds determine no
            interval).
        seeds: a row an iteration, a column a seed.
    """

    environment: str
    group: str
    metric: Metric
    summary: pd.DataFrame
    seeds: pd.DataFrame


def metric(name: str) -> Metric:
    """The metric of a name on the command line.

    Raises:
        UserError: there is none.
    """
    kind, _, updates = name.partition("/")
    counted = updates.isascii() and updates.isdecimal() and len(updates) < 10
    found = METRICS.get(f"{kind}/<k>" if counted else name if "/" not in name else "")
    if found is None:
        raise UserError(f"--metric: expected {', '.join(METRICS)}, got {name[:80]!r}")
    count = int(updates or 0)
    tag, label, axis = found
    return Metric(name, tag.format(count), label.format(count).replace("(s)", "" if count == 1 else "s"), axis)


def smoothed(values: Numbers, window: int) -> Float[np.ndarray, " N"]:
    """The mean of each value and the window − 1 before it (of fewer at the start)."""
    return pd.Series(values, dtype=float).rolling(window, min_periods=1).mean().to_numpy()


def smoothed_reference(reference: Reference, window: int) -> Reference:
    """A reference as smooth as the runs beside it; one with gaps between its iterations stays as it is."""
    if np.any(np.diff(reference.curves.index) != 1):
        return reference
    return dataclasses.replace(reference, curves=reference.curves.apply(smoothed, raw=True, window=window))


def curve(
    environment: str,
    group: str,
    members: Sequence[runs.Run],
    wanted: Metric,
    statistic: statistics.Statistic = statistics.mean,
    window: int = 1,
) -> Curve:
    """A group's curve.

    Raises:
        UserError: a run lacks the metric, or they share no iteration.
    """
    columns = {}
    for member in members:
        iterations, values = member.curve(wanted.tag)
        columns[member.config.seed] = pd.Series(smoothed(values, window), iterations)
    seeds = pd.concat(columns, axis="columns", join="inner")
    if seeds.empty:
        raise UserError(f"{members[-1].path}: shares no iteration with {members[0].path}")
    value, interval = statistics.estimate(seeds.to_numpy().T, statistic)
    low, high = interval or (np.nan, np.nan)
    # Rounded, as the logged numbers are.
    steps = [
        run.progress.reindex(columns=SAMPLED).prod(axis="columns", skipna=False).round().cumsum() for run in members
    ]
    numbers = {"steps": sum(steps) / len(steps), "value": value, "low_95": low, "high_95": high}
    return Curve(environment, group, wanted, pd.DataFrame(numbers, index=seeds.index), seeds)


def curves(
    folders: Sequence[Path],
    output: Path,
    metrics: Sequence[str] = ("after_update",),
    group_by: Sequence[str] = (),
    statistic: str = "mean",
    smooth: int = 1,
    references: Sequence[Path] = (),
    panel_by: str | None = None,
    x: str = "iterations",
) -> tuple[list[Path], list[str]]:
    """Draw learning curves: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: training runs.
        output: path of the files without suffix.
        metrics: names as `metric` takes them.
        group_by: names of options by which runs are separated besides those that decide the result.
        statistic: "mean" or "iqm" (of 5 seeds or more).
        smooth: iterations that a point is the mean of.
        references: reference curves.
        panel_by: "environment" makes a panel of each; None allows one environment only.
        x: "iterations" or "steps".

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    found = [runs.read_run(folder) for folder in folders]
    if panel_by is None:
        runs.same_environment(found)
    compared = [smoothed_reference(read_reference(path), smooth) for path in references]
    wanted = [metric(name) for name in dict.fromkeys(metrics)]
    check(found, compared, wanted, x)
    drawn, lines = [], []
    for environment in dict.fromkeys(run.environment for run in found):
        groups = runs.grouped([run for run in found if run.environment == environment], group_by)
        here = [
            curve(environment, label, members, one, statistics.STATISTICS[statistic], smooth)
            for label, members in groups.items()
            for one in wanted
        ]
        drawn += here
        for label, members in groups.items():
            seeds = ", ".join(str(member.config.seed) for member in members)
            lines.append(f"{environment}, {label}: {len(members)} run(s), seeds {seeds}")
            if len(members) == 1:
                lines.append("  one seed: no interval over seeds can be given")
            elif len(members) < statistics.FEWEST:
                lines.append(f"  fewer than {statistics.FEWEST} seeds: mean with Student's interval")
        if len(groups) == 2:
            lines += [comparison(*(one for one in here if one.metric == shared)) for shared in wanted]
    tables = [table(one) for one in drawn]
    for reference in compared:
        for name in reference.curves.columns.intersection([one.name for one in wanted]):
            tables.append(reference_table(reference, name))
            lines += standing(reference, name, drawn)
    files = style.save(draw(drawn, compared, smooth, x), output)
    return [*files, style.save_frame(output, pd.concat(tables)[COLUMNS])], lines


def check(found: Sequence[runs.Run], references: Sequence[Reference], metrics: Sequence[Metric], x: str) -> None:
    """Refuse what cannot share a picture.

    Raises:
        UserError: saying which.
    """
    environments = [run.environment for run in found]
    for reference in references:
        if reference.environment not in environments:
            known = ", ".join(dict.fromkeys(environments))
            raise UserError(f"{reference.path}: is of {reference.environment}, the runs of {known}")
        if not any(wanted.name in reference.curves for wanted in metrics):
            raise UserError(
                f"{reference.path}: has only {', '.join(map(str, reference.curves))}; --metric names others"
            )
    if len({wanted.axis for wanted in metrics}) > 1:
        raise UserError("--metric: returns and success need a picture each")
    if x == "steps":
        if references:
            raise UserError("--reference: reference curves have iterations only; expected a command without --x steps")
        for run in found:
            run.curve(SAMPLED[0])  # or the error that names it


def table(one: Curve) -> pd.DataFrame:
    """The rows of the CSV file for a curve."""
    frame = one.summary.rename_axis("iteration").reset_index()
    frame = frame.assign(environment=one.environment, group=one.group, metric=one.metric.name)
    return frame.assign(seeds=one.seeds.shape[1], steps=frame["steps"].round().astype("Int64"))


def reference_table(reference: Reference, name: str) -> pd.DataFrame:
    """The rows of the CSV file for a reference curve."""
    frame = reference.curves[name].rename("value").rename_axis("iteration").reset_index()
    frame = frame.assign(environment=reference.environment, group=f"reference: {reference.path.name}", metric=name)
    return frame.reindex(columns=COLUMNS).astype({"seeds": "Int64", "steps": "Int64"})


def comparison(first: Curve, second: Curve) -> str:
    """Two groups, seed by seed: each seed's value is its mean over the last tenth of the iterations."""
    ends = pd.concat([last_tenth(first.seeds), last_tenth(second.seeds)], axis="columns", join="inner")
    if ends.empty:
        return f"  {first.metric.name}: {first.group} and {second.group} share no seed; no paired comparison"
    words = in_words(first.group, second.group, statistics.compare(*ends.to_numpy().T))
    return f"  {first.metric.name}, mean of the last tenth: {words}"


def last_tenth(seeds: pd.DataFrame) -> pd.Series:
    """Each seed's mean of the last tenth of the iterations, at least of one."""
    return seeds.tail(max(1, len(seeds) // 10)).mean()


def in_words(first: str, second: str, found: statistics.Comparison) -> str:
    """A comparison of two groups in words: which is better where that is significant, and in how many seeds."""
    difference, interval = found.difference
    if interval is None:
        return f"{first} minus {second}: {difference:.4g}; the seeds give no interval ({found.seeds} shared)"
    low, high = interval
    better, count = found.improvement, found.better
    if high < 0:
        first, second, low, high, count = second, first, -high, -low, found.seeds - count
        better = Interval(1 - better.mean, 1 - better.high, 1 - better.low)
    seeds = f"in {count:g} of {found.seeds} seeds"
    chance = f"(probability of improvement {better.mean:.2f} [{better.low:.2f}, {better.high:.2f}])"
    if low <= 0:
        words = f"no significant difference; {first} minus {second}: {difference:.4g} [{low:.4g}, {high:.4g}]"
        return f"{words}, better {seeds} {chance}"
    return f"{first} is better than {second} by {abs(difference):.4g} [{low:.4g}, {high:.4g}], {seeds} {chance}"


def standing(reference: Reference, name: str, drawn: Sequence[Curve]) -> list[str]:
    """Where each group stands beside a reference at the last iteration that both have."""
    lines = []
    for one in drawn:
        shared = one.summary.index.intersection(reference.curves.index)
        if (one.environment, one.metric.name) == (reference.environment, name) and len(shared):
            ours, theirs = one.summary["value"][shared[-1]], reference.curves[name][shared[-1]]
            lines.append(
                f"  {name} at iteration {shared[-1]}: {one.group} {ours:.4g}, {reference.path.name} {theirs:.4g}"
            )
    return lines


@style.printed
def draw(
    drawn: Sequence[Curve], references: Sequence[Reference] = (), window: int = 1, x: str = "iterations"
) -> Figure:
    """The figure: a panel an environment, a colour a group, a kind of line a metric; references in black."""
    environments = list(dict.fromkeys(one.environment for one in drawn))
    wanted = list(dict.fromkeys(one.metric for one in drawn))
    colours = dict(zip(dict.fromkeys(one.group for one in drawn), itertools.cycle(style.COLOURS), strict=False))
    kinds = dict(zip(wanted, itertools.cycle(style.LINES), strict=False))
    figure, axes = style.panels(1, len(environments))
    panels = dict(zip(environments, axes[0], strict=True))
    shown: dict[str, list[pd.DataFrame | pd.Series]] = {environment: [] for environment in environments}
    # The kind of line has its own entry in the legend: one metric names the groups.
    for one in drawn:
        panel, colour, seeds = panels[one.environment], colours[one.group], one.seeds.shape[1]
        places = one.summary["steps"] if x == "steps" else one.summary.index
        named = {"label": f"{one.group} ({seeds} seed{'s' * (seeds > 1)})"} if one.metric == wanted[0] else {}
        panel.plot(places, one.summary["value"], color=colour, linestyle=kinds[one.metric], **named)
        panel.fill_between(places, one.summary["low_95"], one.summary["high_95"], color=colour, alpha=0.2, linewidth=0)
        shown[one.environment].append(one.seeds)
    for reference, metric in itertools.product(references, wanted):
        if metric.name in reference.curves:
            values = reference.curves[metric.name]
            named = {"label": "published code"} if metric == wanted[0] else {}
            panel, line = panels[reference.environment], kinds[metric]
            panel.plot(values, color=style.BLACK, linewidth=0.9, linestyle=line, **named)
            shown[reference.environment].append(values)
    for environment, panel in panels.items():
        means = f" (means of {window})" if window > 1 else ""
        panel.set(title=environment, xlabel=f"{AXES[x]}{means}", ylabel=wanted[0].axis)
        panel.set_ylim((-0.02, 1.02) if wanted[0].axis == SUCCESS else style.span(shown[environment]))
        style.whole_numbers(panel.xaxis)
        if x == "steps":
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    lines = [Line2D([], [], color=style.GREY, linestyle=line, label=metric.label) for metric, line in kinds.items()]
    style.legend_below(figure, *lines)
    return figure
