"""What a paper reports of evaluations: levels, paired differences from a baseline, and their p-values."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl.errors import UserError
from rl.evaluation import comparisons, statistics
from rl.evaluation.comparisons import Difference, number
from rl.evaluation.metric_names import SUCCESS
from rl.files import read_text
from rl.plots import style
from rl.plots.adaptation import Measured, Measurements, mean_and_interval, measurements

SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
SIGNATURE = "Levels:"  # what tells a table of plot.py from other files
Cells = Sequence[Sequence[str]]


def table(
    folders: Sequence[Path],
    output: Path,
    group_by: Sequence[str] = (),
    labels: Sequence[str] = (),
    format: str = "markdown",
    updates: Sequence[int] | None = None,
    statistic: str = "mean",
) -> tuple[list[Path], list[str]]:
    """Write a table of evaluations, a row a group, the first of which is the baseline.

    Args:
        folders, group_by, labels: as `rl.plots.adaptation.measurements` takes them.
        output: path of the file without suffix.
        format: a key of `SUFFIXES`.
        updates: after how many of them; default: after the first and after the last.
        statistic: of 5 seeds or more, as `rl.evaluation.statistics.STATISTICS` names it.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    measured = measurements(folders, group_by, labels)
    made = min(one.shape[1] for group in measured.groups.values() for one in group.values()) - 1
    chosen = list(dict.fromkeys([1, made] if updates is None else updates))
    if beyond := [count for count in chosen if count > made]:
        raise UserError(f"--updates: expected at most {made}, which all of the evaluations made, got {beyond[0]}")
    numbers = reckoned(measured, chosen, statistic)
    if format == "csv":
        lines = numbers.to_csv(index=False, lineterminator="\n").splitlines()
    else:
        write: Callable[..., list[str]] = {"markdown": markdown, "latex": latex}[format]
        head, *rows = cells(measured, numbers, chosen)
        words = note(measured, numbers, statistic)
        lines = [*write(head, rows), "", f"% {words}" if format == "latex" else words]
    path = style.with_suffix(output, SUFFIXES[format])
    check_own(path, lines[0] if format == "csv" else SIGNATURE)
    style.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return [path], lines


def check_own(path: Path, signature: str) -> None:
    """Refuse to write over a file that is no table of plot.py's.

    Raises:
        UserError: it is not.
    """
    if os.path.lexists(path) and not (path.is_file() and signature in read_text(path, "a table")):
        raise UserError(f"{path}: is not of plot.py, which replaces its own tables alone; expected another name")


def note(measured: Measurements, numbers: pd.DataFrame, statistic: str) -> str:
    """What the numbers are, in words."""
    centre = style.centre(statistic, map(len, measured.groups.values()))
    words = f"{measured.environment}. {SIGNATURE} {centre} with 95% intervals over seeds, of one seed over its tasks."
    if len(measured.groups) == 1:
        return words
    tests = int(numbers["p"].notna().sum())
    known = f"p: Student's paired test with Holm's correction over {tests} comparisons" if tests else (
        f"p-values take {comparisons.FEWEST} seeds that both groups have")  # fmt: skip
    return f"{words} Differences from the first group are paired by seed, with Student's 95% interval; {known}."


def reckoned(measured: Measurements, updates: Sequence[int], statistic: str) -> pd.DataFrame:
    """The numbers, a row a metric, a group and a number of updates."""
    differences = measured.differences(updates)
    adjusted = comparisons.adjusted(differences)
    rows = []
    for metric, groups in measured.metrics.items():
        for label, group in groups.items():
            for count in updates:
                value, low, high = level(metric, group, count, statistic)
                rows.append({
                    "environment": measured.environment, "group": label, "seeds": len(group),
                    "tasks": sum(map(len, group.values())), "metric": metric, "updates": count,
                    "value": value, "low_95": low, "high_95": high,
                    **difference_of(differences.get((metric, label, count))),
                    "p_holm": adjusted.get((metric, label, count), np.nan),
                })  # fmt: skip
    return pd.DataFrame(rows)


def level(metric: str, group: Measured, updates: int, statistic: str) -> tuple[float, float, float]:
    """A group's value with the ends of its 95% interval, NaN where there is none: over tasks of one evaluation, over
    the seeds of several.
    """
    cut = {seed: means[:, [updates]] for seed, means in group.items()}
    if len(group) >= statistics.FEWEST:
        means = np.array([values.mean() for values in cut.values()])
        value, interval = statistics.estimate(means, statistics.STATISTICS[statistic])
        ends = interval or (np.array(np.nan), np.array(np.nan))
        return float(value), float(ends[0]), float(ends[1])
    value, low, high = mean_and_interval(metric, cut)
    return float(value[0]), float(low[0]), float(high[0])


def difference_of(found: Difference | None) -> dict[str, Any]:
    """The columns of a difference, empty for the baseline and without a shared seed."""
    names = ("pairs", "difference", "difference_low_95", "difference_high_95", "p")
    if found is None or not found.values:
        return dict.fromkeys(names, np.nan)
    value, interval = found.compared.difference
    low, high = interval or (np.nan, np.nan)
    p = np.nan if found.p is None else found.p
    return dict(zip(names, (len(found.values), float(value), float(low), float(high), p), strict=True))


def cells(measured: Measurements, numbers: pd.DataFrame, updates: Sequence[int]) -> list[list[str]]:
    """The head and the rows as text: for each metric and number of updates the level, the difference, its p-value."""
    several = len(measured.groups) > 1
    head = ["method", "seeds"]
    for metric in measured.metrics:
        name = "success" if metric == SUCCESS else "return"
        for count in updates:
            head += [f"{name} after {count} update{'s' * (count != 1)}", *["difference", "p"] * several]
    rows = [head]
    for label, group in measured.groups.items():
        row = [label, str(len(group))]
        for _, one in numbers[numbers["group"] == label].iterrows():
            row.append(between(one["value"], one["low_95"], one["high_95"]))
            if several:
                row.append(between(one["difference"], one["difference_low_95"], one["difference_high_95"]))
                row.append("" if np.isnan(one["p_holm"]) else f"{one['p_holm']:.2g}")
        rows.append(row)
    return rows


def between(value: float, low: float, high: float) -> str:
    """A value and its interval as text; empty where there is no value."""
    if np.isnan(value):
        return ""
    return number(value) if np.isnan(low) else f"{number(value)} [{number(low)}, {number(high)}]"


def markdown(head: Sequence[str], rows: Cells) -> list[str]:
    """The lines of a table in Markdown."""
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (head, ["---"] * len(head), *rows)]
    return [f"| {' | '.join(cells)} |" for cells in escaped]


def latex(head: Sequence[str], rows: Cells) -> list[str]:
    """The lines of a LaTeX tabular, without packages."""
    escaped = [" & ".join(map(escape, cells)) + r" \\" for cells in (head, *rows)]
    begin, rule = rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\hline"
    return [begin, rule, escaped[0], rule, *escaped[1:], rule, r"\end{tabular}"]


def escape(text: str) -> str:
    """Text for LaTeX: its special characters as commands, the minus as in mathematics."""
    special: dict[str, str | int | None] = {character: rf"\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$"}
    return text.translate(str.maketrans(special))
