"""The pictures of docs/results.md. A method has the same colour and marker in all of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from exploration import share_found
from matplotlib.figure import Figure
from sections import Found, after
from table import Experiment, Method

from rl.evaluation import statistics
from rl.plots import curves, style

WINDOW = 10  # iterations that a point of a learning curve is the mean of
CROWD = 6  # methods that one panel can show; more are split by kinds of gates
NOTE = (
    f"means of {WINDOW} iterations; line: interquartile mean over seeds (of fewer than 5: mean); each panel has a "
    "scale of its own"
)


def looks(methods: Mapping[str, Method]) -> dict[str, style.Look]:
    """How each method is drawn: by its place in the table of methods."""
    return {name: style.look(number) for number, name in enumerate(methods)}


def curve(row: Experiment, method: Method, runs: dict[int, dict], name: str) -> curves.Curve:
    """A method's learning curve."""
    length = min(len(run["curves"][name]) for run in runs.values())
    seeds = pd.DataFrame({seed: curves.smoothed(run["curves"][name][:length], WINDOW) for seed, run in runs.items()})
    value, interval = statistics.estimate(seeds.to_numpy().T, statistics.interquartile_mean)
    low, high = interval or (np.nan, np.nan)
    summary = pd.DataFrame({"value": value, "low_95": low, "high_95": high})
    return curves.Curve(row.title, method.title, curves.metric(name), summary, seeds)


def split(row: Experiment, found: Found) -> list[list[str]]:
    """The methods in rows of panels: all in one or, where they are many, each kind of gates with its biases in one of
    its own, and the baseline in every one.
    """
    if len(found) <= CROWD:
        return [list(found)]
    kinds: dict[str, list[str]] = {}
    for method in found:
        if method != row.baseline:
            kinds.setdefault(method.rstrip("_0123456789"), []).append(method)
    alone = [members[0] for members in kinds.values() if len(members) == 1]
    rows = [alone] * bool(alone) + [members for members in kinds.values() if len(members) > 1]
    return [[row.baseline, *members] for members in rows]


@style.printed
def learning(row: Experiment, found: Found, methods: dict[str, Method]) -> Figure:
    """Learning curves of an experiment: before and after the update, a line a method with its seeds or its interval."""
    rows, drawn = split(row, found), looks(methods)
    figure, axes = style.panels(len(rows), 2)
    more = []
    for members, panels in zip(rows, axes, strict=True):
        for panel, name in zip(panels, ("before_update", "after_update"), strict=True):
            for method in members:
                one = curve(row, methods[method], found[method], name)
                more += curves.draw_curve(panel, one.summary.index.to_numpy(), one, drawn[method], "-", named=True)
            panel.set(xlabel="iteration", ylabel=f"return {one.metric.label}")
    figure.suptitle(row.title)
    figure.supxlabel(NOTE, fontsize=6)
    style.legend_below(figure, *more)
    return figure


@style.printed
def exploration(explored: Sequence[tuple[Experiment, Found]], methods: dict[str, Method]) -> Figure:
    """What every run finds before the update and what it reaches after it: a panel an experiment, a point a run."""
    figure, axes = style.panels(1, len(explored), width=2.4)
    drawn = looks(methods)
    for panel, (row, found) in zip(axes[0], explored, strict=True):
        panel.axline((0, 0), slope=1, color=style.GREY, linewidth=0.6)
        for method, runs in found.items():
            points = [(share_found(run), after(run, 1, "success")) for run in runs.values()]
            panel.plot(*zip(*points, strict=True), **drawn[method].drawn, linestyle="", alpha=0.8,
                       label=methods[method].title)  # fmt: skip
        places = [line.get_xydata() for line in panel.lines[1:]]
        limits = (-0.03, max(0.0, *(float(points.max()) for points in places)) + 0.05)
        panel.set(title=row.title, xlabel="tasks found before the update", xlim=limits, ylim=limits)
    axes[0, 0].set_ylabel("success rate after it")
    style.legend_below(figure)
    return figure
