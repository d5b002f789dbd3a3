"""Learning curves: a metric against the iteration, seeds summarized with their interval."""

import dataclasses
from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from rl.errors import UserError
from rl.evaluation import runs, statistics
from rl.evaluation.intervals import Interval
from rl.evaluation.references import read_reference
from rl.plots import style

TRAINING = {
    "after_update": ("running_returns/after_update", "after the update"),
    "before_update": ("running_returns/before_update", "before the update"),
}
# Blanks in tags are read as underscores.
SUCCESS = "success rate (any step)"
EVALUATED = {
    "test": ("evaluation_rew/avg_rew_{}", "return of an episode (reward)"),
    "success": ("evaluation_success/any_{}", SUCCESS),
}
COLUMNS = ("environment", "group", "seeds", "metric", "iteration", "steps", "value", "low_95", "high_95")
SAMPLED = ("time/env_steps_per_second", "time/sampling")
INTERVALS = ("one seed: no interval over seeds can be given", "fewer than 5 seeds: mean with Student's interval")
AXES = {"iterations": "meta-training iteration", "steps": "environment steps of meta-training"}


class Curve(NamedTuple):
    """A group's summary of one metric: iterations [N], value [N], interval (low [N], high [N]) or None where the seeds
    tell of none.

    `steps` [N] are the environment steps sampled up to and with an iteration, evaluations left out, the mean over
    seeds, NaN where a run has not logged them; `seeds` maps each seed to its own values [N].
    """

    iterations: np.ndarray
    steps: np.ndarray
    value: np.ndarray
    interval: tuple | None
    seeds: dict


class Metric(NamedTuple):
    """A metric by its name on the command line: TensorBoard's tag, a label, the axis that it belongs to."""

    name: str
    tag: str
    label: str
    axis: str


def metric(name):
    """The `Metric` of after_update, before_update, test/<k> or success/<k>.

    Raises:
        UserError: something else.
    """
    if name in TRAINING:
        return Metric(name, *TRAINING[name], "return of an episode (reward)")
    kind, _, updates = name.partition("/")
    if kind not in EVALUATED or not updates.isdecimal():
        raise UserError(f"--metric: expected after_update, before_update, test/<k> or success/<k>, got {name!r}")
    tag, axis = EVALUATED[kind]
    plural = "" if updates == "1" else "s"
    return Metric(name, tag.format(int(updates)), f"test tasks, {int(updates)} update{plural}", axis)


def smoothed(values, window):
    """The mean of each value and the window − 1 before it (of fewer at the start)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def smoothed_reference(reference, window):
    """A reference as smooth as the runs beside it; one with gaps between its iterations stays as it is."""
    if np.any(np.diff(reference.iterations) != 1):
        return reference
    curves = {name: smoothed(values, window) for name, values in reference.curves.items()}
    return dataclasses.replace(reference, curves=curves)


def group_curve(members, tag, statistic, window):
    """A group's `Curve` over the iterations that all of them have.

    Raises:
        UserError: a run lacks the curve, or they share no iteration.
    """
    found = [member.curve(tag) for member in members]
    shared = found[0][0]
    for iterations, _ in found[1:]:
        shared = np.intersect1d(shared, iterations)
    if not shared.size:
        raise UserError(f"{members[-1].path}: shares no iteration with {members[0].path}")
    values = np.stack([smoothed(curve, window)[np.isin(iterations, shared)] for iterations, curve in found])
    seeds = {member.config.seed: row for member, row in zip(members, values, strict=True)}
    steps = np.mean([steps_until(member, shared) for member in members], axis=0)
    return Curve(shared, steps, *statistics.estimate(values, statistic), seeds)


def steps_until(run, iterations):
    """The environment steps that a run sampled up to and with each of some iterations [N].

    The log has an iteration's steps a second and its seconds, whose product is a whole number but for rounding.
    """
    if not run.curves.keys() >= set(SAMPLED):
        return np.full(len(iterations), np.nan)
    (logged, speed), (_, seconds) = (run.curve(tag) for tag in SAMPLED)
    total = np.cumsum(np.round(speed * seconds))
    return total[np.searchsorted(logged, iterations)]


def curves(folders, output, metrics=("after_update",), group_by=(), statistic="mean", window=1, references=(),
           panel_by=None, x="iterations"):  # fmt: skip
    """Draw learning curves: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: paths of training runs.
        output: path of the files without suffix.
        metrics: names as `metric` takes them.
        group_by: names of options that tell groups apart besides those that decide the result.
        statistic: "mean" or "iqm" (of 5 seeds or more).
        window: iterations that a point is the mean of.
        references: paths of reference curves.
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
    environments = list(dict.fromkeys(run.environment for run in found))
    compared = [smoothed_reference(read_reference(path), window) for path in references]
    wanted = [metric(name) for name in metrics]
    check(environments, compared, wanted)
    if references and x == "steps":
        raise UserError("--reference: reference curves know iterations alone; expected a command without --x steps")
    if x == "steps":
        for run in found:
            run.curve(SAMPLED[0])  # or the error that names it

    rows, lines, drawn = [], [], {}
    for environment in environments:
        groups = runs.grouped([run for run in found if run.environment == environment], group_by)
        summaries = {
            (label, name): group_curve(members, name.tag, statistics.STATISTICS[statistic], window)
            for label, members in groups.items()
            for name in wanted
        }
        drawn[environment] = summaries
        for (label, name), curve in summaries.items():
            rows += table(environment, label, name.name, curve)
        for label, members in groups.items():
            seeds = ", ".join(str(member.config.seed) for member in members)
            lines.append(f"{environment}, {label}: {len(members)} run(s), seeds {seeds}")
            if len(members) < statistics.FEWEST:
                lines.append(f"  {INTERVALS[len(members) > 1]}")
        lines += comparisons(groups, summaries, wanted)
    for reference in compared:
        for name, values in reference.curves.items():
            if name in metrics:
                label = f"reference: {reference.path.name}"
                rows += [(reference.environment, label, None, name, int(i), None, v, None, None)
                         for i, v in zip(reference.iterations, values.tolist(), strict=True)]  # fmt: skip
                lines += standing(reference, drawn[reference.environment], name)
    files = style.save(draw(drawn, compared, metrics, window, x), output)
    return [*files, style.save_table(output, COLUMNS, rows)], lines


def check(environments, references, metrics):
    """Refuse references of other environments and metrics of different units.

    Raises:
        UserError: saying which.
    """
    for reference in references:
        if reference.environment not in environments:
            raise UserError(f"{reference.path}: is of {reference.environment}, the runs of {', '.join(environments)}")
        if not any(wanted.name in reference.curves for wanted in metrics):
            raise UserError(f"{reference.path}: has {', '.join(reference.curves)} alone; --metric asks for others")
    if len({wanted.axis for wanted in metrics}) > 1:
        raise UserError("--metric: returns and success need a picture each")


def table(environment, label, name, curve):
    """The rows of the CSV file for one curve."""
    low, high = curve.interval or ([None] * len(curve.value),) * 2
    steps = [None if np.isnan(step) else round(step) for step in curve.steps.tolist()]
    return [
        (environment, label, len(curve.seeds), name, int(iteration), step, float(value), lower, higher)
        for iteration, step, value, lower, higher in zip(curve.iterations, steps, curve.value, low, high, strict=True)
    ]


def comparisons(groups, summaries, metrics):
    """Two groups, seed by seed: each seed's value is its mean over the last tenth of the iterations; lines of text."""
    if len(groups) != 2:
        return []
    lines = []
    for wanted in metrics:
        (first, second) = ((label, summaries[label, wanted]) for label in groups)
        shared = sorted(set(first[1].seeds) & set(second[1].seeds))
        if not shared:
            lines.append(f"  {wanted.name}: {first[0]} and {second[0]} share no seed; no paired comparison")
            continue
        ends = [[last_tenth(curve.seeds[seed]) for seed in shared] for _, curve in (first, second)]
        lines.append(
            f"  {wanted.name}, mean of the last tenth: {in_words(first[0], second[0], statistics.compare(*ends))}"
        )
    return lines


def in_words(first, second, found):
    """A `Comparison` of two groups in words: which is better where the interval tells, and how sure that is."""
    difference, interval = found.difference
    if interval is None:
        return f"{first} minus {second}: {difference:.4g}; the seeds give no interval ({found.seeds} shared)"
    low, high = interval
    better, count = found.improvement, f"{found.better:g} of {found.seeds}"
    if low <= 0 <= high:
        words = f"no difference told; {first} minus {second}: {difference:.4g} [{low:.4g}, {high:.4g}]"
        return f"{words}, better in {count} seeds (probability of improvement {_share(better)})"
    if high < 0:
        first, second, low, high, count = second, first, -high, -low, f"{found.seeds - found.better:g} of {found.seeds}"
        better = Interval(1 - better.mean, 1 - better.high, 1 - better.low)
    return (
        f"{first} is better than {second} by {abs(difference):.4g} [{low:.4g}, {high:.4g}], in {count} seeds "
        f"(probability of improvement {_share(better)})"
    )


def _share(interval):
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def last_tenth(values):
    """The mean of the last tenth, at least one value."""
    return float(np.mean(values[-max(1, len(values) // 10) :]))


def standing(reference, summaries, name):
    """Where each group stands beside a reference at the last iteration that both have: lines of text."""
    lines = []
    for (label, wanted), curve in summaries.items():
        if wanted.name != name:
            continue
        shared, ours, theirs = np.intersect1d(curve.iterations, reference.iterations, return_indices=True)
        if shared.size:
            lines.append(
                f"  {name} at iteration {shared[-1]}: {label} {curve.value[ours[-1]]:.4g}, "
                f"{reference.path.name} {reference.curves[name][theirs[-1]]:.4g}"
            )
    return lines


@style.printed
def draw(drawn, references, metrics, window=1, x="iterations"):
    """The figure: a panel an environment, a colour a group, a kind of line a metric; references in black."""
    figure, axes = style.panels(1, len(drawn))
    lines_of = dict(zip(metrics, style.LINES * len(metrics), strict=False))
    shades = style.colours()
    colours = {label: next(shades) for label in dict.fromkeys(key[0] for found in drawn.values() for key in found)}
    for panel, (environment, summaries) in zip(axes[0], drawn.items(), strict=True):
        shown = []
        for (label, wanted), curve in summaries.items():
            kind = {"color": colours[label], "linestyle": lines_of[wanted.name]}
            places = curve.steps if x == "steps" else curve.iterations
            seeds = f"{len(curve.seeds)} seed" + ("s" if len(curve.seeds) > 1 else "")
            # The kind of line has its own entry in the legend.
            named = {"label": f"{label} ({seeds})"} if wanted.name == metrics[0] else {}
            panel.plot(places, curve.value, **kind, **named)
            if curve.interval is not None:
                panel.fill_between(places, *curve.interval, color=colours[label], alpha=0.2, linewidth=0)
            panel.set_ylabel(wanted.axis)
            shown += list(curve.seeds.values())
        for reference in references:
            for name in metrics:
                if reference.environment == environment and name in reference.curves:
                    named = {"label": "published code"} if name == metrics[0] else {}
                    shown.append(reference.curves[name])
                    panel.plot(reference.iterations, reference.curves[name], color=style.BLACK, linewidth=0.9,
                               linestyle=lines_of[name], **named)  # fmt: skip
        panel.set_xlabel(AXES[x] + (f" (means of {window})" if window > 1 else ""))
        panel.set_title(environment)
        style.whole_numbers(panel.xaxis)
        if x == "steps":
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_ylim((-0.02, 1.02) if metrics[0].startswith("success") else style.span(shown))
    kinds = {wanted.name: wanted.label for summaries in drawn.values() for _, wanted in summaries}
    style.legend_below(
        figure, *(Line2D([], [], color=style.GREY, linestyle=lines_of[name], label=kinds[name]) for name in metrics)
    )
    return figure
