"""The pictures of docs/results.md."""

from collections.abc import Sequence

import numpy as np
from exploration import share_found
from matplotlib.figure import Figure
from sections import Found, after
from table import Experiment, Method

from rl.evaluation import statistics
from rl.plots import curves, style

WINDOW = 10  # iterations that a point of a learning curve is the mean of
LINES = ["-"] * 6 + ["--"] * 6
MARKERS = ["o"] * 6 + ["^"] * 6


@style.printed
def learning(row: Experiment, found: Found, methods: dict[str, Method]) -> Figure:
    """Learning curves of an experiment: before and after the update, a line a method with its interval over seeds."""
    figure, axes = style.panels(1, 2, sharey=True)
    for panel, name in zip(axes[0], ("before_update", "after_update"), strict=True):
        for (method, runs), colour, line in zip(found.items(), style.colours(), LINES, strict=False):
            length = min(len(run["curves"][name]) for run in runs.values())
            values = np.array([curves.smoothed(run["curves"][name][:length], WINDOW) for run in runs.values()])
            middle, interval = statistics.estimate(values, statistics.interquartile_mean)
            panel.plot(middle, line, color=colour, label=f"{methods[method].title}; seeds: {len(runs)}")
            # Of fewer seeds the intervals would hide the curves.
            if len(values) >= statistics.FEWEST:
                panel.fill_between(range(length), *interval, color=colour, alpha=0.15, linewidth=0)
        panel.set(xlabel="iteration", title=curves.metric(name).label)
    axes[0, 0].set_ylabel("return")
    figure.suptitle(row.title)
    style.legend_below(figure)
    return figure


@style.printed
def exploration(explored: Sequence[tuple[Experiment, Found]], methods: dict[str, Method]) -> Figure:
    """What every run finds before the update and what it reaches after it: a panel an experiment, a point a run."""
    figure, axes = style.panels(1, len(explored), width=2.4, sharex=True, sharey=True)
    names = list(dict.fromkeys(method for _, found in explored for method in found))
    looks = dict(zip(names, zip(style.colours(), MARKERS, strict=False), strict=False))
    for panel, (row, found) in zip(axes[0], explored, strict=True):
        panel.axline((0, 0), slope=1, color=style.GREY, linewidth=0.6)
        for method, runs in found.items():
            colour, marker = looks[method]
            points = [(share_found(run), after(run, 1, "success")) for run in runs.values()]
            panel.plot(*zip(*points, strict=True), marker, color=colour, alpha=0.8, label=methods[method].title)
        panel.set(title=row.title, xlabel="tasks found before the update")
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes[0, 0].set_ylabel("success rate after it")
    style.legend_below(figure)
    return figure
