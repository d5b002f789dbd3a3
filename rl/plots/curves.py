"""Learning curves: a metric against the iteration, seeds summarized with their interval."""

import dataclasses
from typing import NamedTuple

import numpy as np

from rl.errors import UserError
from rl.plots import runs, statistics, style
from rl.plots.references import read_reference

TRAINING = {
    "after_update": ("running_returns/after_update", "after the update"),
    "before_update": ("running_returns/before_update", "before the update"),
}
# Blanks in tags are read as underscores.
EVALUATED = {
    "test": ("evaluation_rew/avg_rew_{}", "return of an episode (reward)"),
    "success": ("evaluation_success/any_{}", "share of solved episodes"),
}
COLUMNS = ("environment", "group", "seeds", "metric", "iteration", "value", "low_95", "high_95")


class Curve(NamedTuple):
    """A group's summary of one metric: iterations [N], value [N], interval (low [N], high [N]) or None for one seed.

    `seeds` maps each seed to its own values [N].
    """

    iterations: np.ndarray
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


def summarize(members, tag, statistic, window):
    """Summarize a group's runs: a `Curve` over the iterations that all of them have.

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
    return Curve(shared, statistic(values, axis=0), statistics.bootstrap([values], statistic), seeds)


def curves(folders, output, metrics=("after_update",), group_by=(), statistic="mean", window=1, references=(),
           panel_by=None):  # fmt: skip
    """Draw learning curves: PNG, PDF and the numbers drawn as CSV.

    Args:
        folders: paths of training runs.
        output: path of the files without suffix.
        metrics: names as `metric` takes them.
        group_by: names of options; none groups the runs that differ only in the seed.
        statistic: "mean" or "iqm".
        window: iterations that a point is the mean of.
        references: paths of reference curves.
        panel_by: "environment" makes a panel of each; None allows one environment only.

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

    rows, lines, drawn = [], [], {}
    for environment in environments:
        groups = runs.grouped([run for run in found if run.environment == environment], group_by)
        summaries = {
            (label, name): summarize(members, name.tag, statistics.STATISTICS[statistic], window)
            for label, members in groups.items()
            for name in wanted
        }
        drawn[environment] = summaries
        for (label, name), curve in summaries.items():
            rows += table(environment, label, name.name, curve)
        for label, members in groups.items():
            seeds = ", ".join(str(member.config.seed) for member in members)
            lines.append(f"{environment}, {label}: {len(members)} run(s), seeds {seeds}")
            if len(members) == 1:
                lines.append("  one seed: no interval over seeds can be given")
        lines += comparisons(groups, summaries, wanted)
    for reference in compared:
        for name, values in reference.curves.items():
            if name in metrics:
                rows += [(reference.environment, f"reference: {reference.path.name}", None, name, int(i), v, None, None)
                         for i, v in zip(reference.iterations, values.tolist(), strict=True)]  # fmt: skip
                lines += standing(reference, drawn[reference.environment], name)
    files = style.save(draw(drawn, compared, metrics, window), output)
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
    return [
        (environment, label, len(curve.seeds), name, int(iteration), float(value), lower, higher)
        for iteration, value, lower, higher in zip(curve.iterations, curve.value, low, high, strict=True)
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
        found = statistics.compare(*ends)
        text = f"  {wanted.name}, last tenth: {first[0]} − {second[0]} = {found.difference:.4g}"
        if found.difference_interval is None:
            lines.append(f"{text}; one shared seed: no interval over seeds can be given")
            continue
        (low, high), (less, more) = found.difference_interval, found.improvement_interval
        lines.append(
            f"{text} [{low:.4g}, {high:.4g}], probability of improvement {found.improvement:.2f} [{less:.2f}, "
            f"{more:.2f}], {found.seeds} paired seeds"
        )
    return lines


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
def draw(drawn, references, metrics, window=1):
    """The figure: a panel an environment, a colour a group, a kind of line a metric; references in black."""
    figure, axes = style.panels(1, len(drawn))
    lines_of = dict(zip(metrics, style.LINES * len(metrics), strict=False))
    for panel, (environment, summaries) in zip(axes[0], drawn.items(), strict=True):
        shades = style.colours()
        colours = {label: next(shades) for label in dict.fromkeys(label for label, _ in summaries)}
        for (label, wanted), curve in summaries.items():
            seeds = f"{len(curve.seeds)} seed" + ("s" if len(curve.seeds) > 1 else "")
            kind = {"color": colours[label], "linestyle": lines_of[wanted.name]}
            panel.plot(curve.iterations, curve.value, label=f"{label}, {wanted.label} ({seeds})", **kind)
            if curve.interval is not None:
                panel.fill_between(curve.iterations, *curve.interval, color=colours[label], alpha=0.2, linewidth=0)
            panel.set_ylabel(wanted.axis)
        for reference in references:
            for name in metrics:
                if reference.environment == environment and name in reference.curves:
                    label = f"reference, {TRAINING[name][1]}"
                    panel.plot(reference.iterations, reference.curves[name], color=style.BLACK, linewidth=0.9,
                               linestyle=lines_of[name], label=label)  # fmt: skip
        panel.set_xlabel("meta-training iteration" + (f" (means of {window})" if window > 1 else ""))
        panel.set_title(environment)
        style.whole_numbers(panel.xaxis)
    style.legends_below(figure, axes[0])
    return figure
