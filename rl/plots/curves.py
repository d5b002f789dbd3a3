"""Learning curves: a metric against the iteration, seeds summarized with their interval."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from rl.errors import UserError
from rl.evaluation import comparisons as comparing
from rl.evaluation import runs, statistics
from rl.evaluation.comparisons import LEVEL, Difference
from rl.evaluation.intervals import Interval, Numbers
from rl.evaluation.metric_names import METRICS, SUCCESS, Metric, metric_named
from rl.evaluation.references import Reference, read_reference
from rl.evaluation.statistics import FEWEST
from rl.plots import style

COLUMNS = ["environment", "group", "seeds", "metric", "iteration", "steps", "value", "low_95", "high_95"]
ENDS = ["low_95", "high_95"]
SAMPLED = ["time/env_steps_per_second", "time/sampling"]  # their product are an iteration's environment steps
AXES = {"iterations": "meta-training iteration", "steps": "environment steps of meta-training"}


class Curve(NamedTuple):
    """One metric of a group of runs, over the iterations that all of them have.

    Attributes:
        environment, group, metric: of what.
        summary: a row an iteration: `steps` (environment steps sampled for training up to and with it, the mean over
            seeds; NaN where a run has not logged them), `value`, `low_95`, `high_95` (NaN where the seeds determine no
            interval).
        seeds: a row an iteration, a column a seed.
        measured: the same before they were smoothed.
    """

    environment: str
    group: str
    metric: Metric
    summary: pd.DataFrame
    seeds: pd.DataFrame
    measured: pd.DataFrame

    @property
    def extent(self) -> pd.DataFrame:
        """All that is drawn of it: its value and interval, or of few seeds each."""
        return self.seeds if self.seeds.shape[1] < FEWEST else self.summary[["value", *ENDS]]


def metric(name: str) -> Metric:
    """The metric of a name on the command line.

    Raises:
        UserError: there is none.
    """
    found = metric_named(name)
    if found is None:
        raise UserError(f"--metric: expected {', '.join(METRICS)}, got {name[:80]!r}")
    return found


def smoothed(curves: pd.DataFrame, window: int) -> pd.DataFrame:
    """The mean of each value and the window − 1 before it (of fewer at the start), column by column; where there are
    gaps between the iterations, the curves as they are.
    """
    return curves if has_gaps(curves) else curves.rolling(window, min_periods=1).mean()


def has_gaps(curves: pd.DataFrame) -> bool:
    """Whether iterations are missing between the first and the last, as of evaluations."""
    return bool(np.any(np.diff(curves.index) != 1))


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
        columns[member.seed] = pd.Series(values, iterations, dtype=float)
    measured = pd.concat(columns, axis="columns", join="inner")
    if measured.empty:
        raise UserError(f"{members[-1].path}: shares no iteration with {members[0].path}")
    seeds = smoothed(measured, window)
    value, interval = statistics.estimate(seeds.to_numpy().T, statistic)
    low, high = interval or (np.nan, np.nan)
    # Rounded, as the logged numbers are.
    steps = [
        run.progress.reindex(columns=SAMPLED).prod(axis="columns", skipna=False).round().cumsum() for run in members
    ]
    numbers = {"steps": sum(steps) / len(steps), "value": value, "low_95": low, "high_95": high}
    return Curve(environment, group, wanted, pd.DataFrame(numbers, index=seeds.index), seeds, measured)


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
    labels: Sequence[str] = (),
    frame: style.Frame = style.OWN,
) -> tuple[list[Path], list[str]]:
    """Draw learning curves: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: training runs.
        output: path of the files without suffix.
        metrics: names as in `rl.evaluation.metric_names`.
        group_by: names of options by which runs are separated besides those that decide the result.
        statistic: "mean" or "iqm" (of 5 seeds or more).
        smooth: iterations that a point is the mean of.
        references: reference curves.
        panel_by: "environment" makes a panel of each; None allows one environment only.
        x: "iterations" or "steps".
        labels: names of the groups instead of their own.
        frame: title, size and limits.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    found = [runs.read_run(folder) for folder in folders]
    if panel_by is None:
        runs.same_environment(found)
    compared = [
        dataclasses.replace(one, curves=smoothed(one.curves, smooth)) for one in map(read_reference, references)
    ]
    wanted = [metric(name) for name in dict.fromkeys(metrics)]
    check(found, compared, wanted, x)
    grouped = {
        environment: runs.grouped([run for run in found if run.environment == environment], group_by)
        for environment in dict.fromkeys(run.environment for run in found)
    }
    names = runs.names([label for groups in grouped.values() for label in groups], labels)
    drawn, lines = [], []
    for environment, groups in grouped.items():
        groups = {names[label]: members for label, members in groups.items()}
        here = [
            curve(environment, label, members, one, statistics.STATISTICS[statistic], smooth)
            for label, members in groups.items()
            for one in wanted
        ]
        drawn += here
        lines += [*told(environment, groups), *comparisons(here)]
    tables = [table(one) for one in drawn]
    for reference in compared:
        for name in reference.curves.columns.intersection([one.name for one in wanted]):
            tables.append(reference_table(reference, name))
            lines += standing(reference, name, drawn)
    figure = draw(drawn, compared, smooth, x, frame, statistic)
    files = style.save(figure, output, frame.size)
    return [*files, style.save_frame(output, pd.concat(tables)[COLUMNS])], lines


def told(environment: str, groups: Mapping[str, Sequence[runs.Run]]) -> list[str]:
    """What is drawn, in words: the groups and their seeds."""
    lines = []
    for label, members in groups.items():
        seeds = ", ".join(str(member.seed) for member in members)
        lines.append(f"{environment}, {label}: {len(members)} run(s), seeds {seeds}")
        if len(members) == 1:
            lines.append("  one seed: no interval over seeds can be given")
        elif len(members) < FEWEST:
            lines.append(f"  fewer than {FEWEST} seeds: mean with Student's interval")
    return lines


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


def comparisons(drawn: Sequence[Curve]) -> list[str]:
    """Each group beside the first one, seed by seed, with Holm's correction over all of these comparisons: a seed's
    value is its mean over the last tenth of the iterations that both groups have, whatever is smoothed.
    """
    pairs: dict[tuple[str, str], tuple[str, Difference, str]] = {}
    for one in drawn:
        first = next(other for other in drawn if other.metric == one.metric)
        if one is not first:
            shared = one.measured.index.intersection(first.measured.index)
            ends = [last_tenth(curve.measured.loc[shared]).to_dict() if len(shared) else {} for curve in (one, first)]
            partly = len(shared) < max(len(one.measured), len(first.measured))
            where = f" of the {len(shared)} iterations that both have" * partly
            pairs[one.metric.name, one.group] = first.group, Difference.between(ends[0], ends[1]), where
    adjusted = comparing.adjusted({names: difference for names, (_, difference, _) in pairs.items()})
    lines = []
    for (name, group), (first_group, difference, where) in pairs.items():
        if not difference.values:
            lines.append(f"  {name}: {group} and {first_group} share no seed or no iteration; no paired comparison")
            continue
        words = in_words(group, first_group, difference, adjusted.get((name, group)))
        lines.append(f"  {name}, mean of the last tenth{where}: {words}")
    if len(adjusted) > 1:
        lines.append(f"  p with Holm's correction over {len(adjusted)} comparisons")
    return lines


def last_tenth(seeds: pd.DataFrame) -> pd.Series:
    """Each seed's mean of the last tenth of the iterations, at least of one."""
    return seeds.tail(max(1, len(seeds) // 10)).mean()


def in_words(first: str, second: str, difference: Difference, p: float | None) -> str:
    """A comparison of two groups in words: which is better where that is significant, and in how many seeds.

    Args:
        first, second: their names.
        difference: of the first minus the second.
        p: the adjusted p-value; None of too few seeds.
    """
    found = difference.compared
    (value, interval), better, count = found.difference, found.improvement, found.better
    if interval is None:
        return f"{first} minus {second}: {value:.4g}; the seeds give no interval ({found.seeds} shared)"
    low, high = interval
    significant = p is not None and p < LEVEL
    if significant and value < 0:
        first, second, low, high, count = second, first, -high, -low, found.seeds - count
        better = Interval(1 - better.mean, 1 - better.high, 1 - better.low)
    seeds = f"in {count:g} of {found.seeds} seeds"
    share = f"(a share of {better.mean:.2f} [{better.low:.2f}, {better.high:.2f}])"
    share += "" if p is None else f", p = {p:.2g}"
    if not significant:
        words = f"no significant difference; {first} minus {second}: {value:.4g} [{low:.4g}, {high:.4g}]"
        return f"{words}, better {seeds} {share}"
    return f"{first} is better than {second} by {abs(value):.4g} [{low:.4g}, {high:.4g}], {seeds} {share}"


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
    drawn: Sequence[Curve],
    references: Sequence[Reference] = (),
    window: int = 1,
    x: str = "iterations",
    frame: style.Frame = style.OWN,
    statistic: str = "mean",
) -> Figure:
    """The figure: a panel an environment, a look a group, a kind of line a metric; references in black."""
    environments = list(dict.fromkeys(one.environment for one in drawn))
    wanted = list(dict.fromkeys(one.metric for one in drawn))
    centre = style.centre(statistic, [one.seeds.shape[1] for one in drawn])
    looks = {group: style.look(number) for number, group in enumerate(dict.fromkeys(one.group for one in drawn))}
    kinds = {metric: style.kind_of_line(number) for number, metric in enumerate(wanted)}
    figure, axes = style.panels(1, len(environments), *((frame.size[0] / len(environments), frame.size[1])
                                if frame.size else style.PANEL))  # fmt: skip
    panels = dict(zip(environments, axes[0], strict=True))
    shown: dict[str, list[pd.DataFrame | pd.Series]] = {environment: [] for environment in environments}
    more: list[Artist] = []
    alone, several = len(looks) == 1 and not references, any(one.seeds.shape[1] > 1 for one in drawn)
    for one in drawn:
        places = (one.summary["steps"] if x == "steps" else one.summary.index).to_numpy()
        more += draw_curve(panels[one.environment], places, one, looks[one.group], kinds[one.metric],
                           named=one.metric == wanted[0] and not alone)  # fmt: skip
        shown[one.environment].append(one.extent)
    for reference, metric in itertools.product(references, wanted):
        if metric.name in reference.curves:
            values = reference.curves[metric.name]
            named = {"label": "published code"} if metric == wanted[0] else {}
            panel, line = panels[reference.environment], kinds[metric]
            panel.plot(values, color=style.BLACK, linewidth=0.9, linestyle=line, **named)
            shown[reference.environment].append(values)
    for environment, panel in panels.items():
        only = f"\n{drawn[0].group}" if len(looks) == 1 else ""
        here = [one for one in drawn if one.environment == environment and not has_gaps(one.seeds)]
        means = f" (means of {window})" if window > 1 and here else ""
        what = [wanted[0].label] * (len(wanted) == 1) + [f"{centre} over seeds"] * several
        label = "\n".join([wanted[0].axis, *([", ".join(what)] if what else [])])
        panel.set(title=f"{environment}{only}", xlabel=f"{AXES[x]}{means}", ylabel=label)
        whole = (-0.02, 1.02) if wanted[0].axis == SUCCESS else style.span(shown[environment])
        panel.set_ylim(frame.ylim or whole)
        style.whole_numbers(panel.xaxis)
        if x == "steps":
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(kinds) > 1:
        more += [Line2D([], [], color=style.GREY, linestyle=line, label=one.label) for one, line in kinds.items()]
    style.titled(figure, list(panels.values()), frame.title)
    style.legend_below(figure, *more)
    return figure


def draw_curve(panel: Axes, places: Numbers, one: Curve, look: style.Look, line: Any, named: bool) -> list[Artist]:
    """Draw a group's curve with its seeds or its interval, whose entries of the legend are returned. A curve of a
    single iteration is a point with an upright interval.
    """
    seeds, marks = one.seeds.shape[1], max(1, len(one.summary) // 8)
    label = f"{one.group} ({seeds} seed{'s' * (seeds > 1)})" if named else None
    low, high = one.summary[ENDS].to_numpy().T
    interval = None if np.isnan(low).all() else (low, high)
    entries = style.spread(panel, places, one.seeds.to_numpy().T, interval, look)
    panel.plot(places, one.summary["value"], **look.drawn, linestyle=line,
               markevery=(look.number % marks, marks), label=label)  # fmt: skip
    return entries
