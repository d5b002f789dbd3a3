"""The pictures of docs/results.md and its pages. A method has the same colour and marker in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from measures import MEASURES, WINDOW, Found, Methods, after, primary, share_found
from table import Experiment, Method

from rl.evaluation import statistics
from rl.plots import curves, style

CROWD = 6  # methods that one panel can show; more are split by kinds
KINDS = ("cavia", "cavia_matched", "nm_hard", "nm_soft", "nm_ste", "maml")
SHADES = (1.0, 0.75, 0.55, 0.35)
START = 0.1  # of a learning curve, which may lie outside the panel: it would hide by how much methods differ
NOTE = (
    f"means of {WINDOW} iterations; line: interquartile mean over seeds (of fewer than 5: mean); each panel has a "
    f"scale of its own, in which the first {START:.0%} of a curve may not fit"
)


class Look(NamedTuple):
    """How a method is drawn."""

    look: style.Look
    line: Any


def kind_of(name: str) -> str:
    """The kind of a method, of which it is a variant."""
    return max((kind for kind in KINDS if f"{name}_".startswith(f"{kind}_")), key=len)


def looks(methods: Mapping[str, Method]) -> dict[str, Look]:
    """How each method is drawn: its kind has a colour and a marker, and every variant of a kind (which its name adds to
    the kind's) a darker shade of the colour, a line and, with the kind, a marker.
    """
    variants, found = [""], {}
    for name in methods:
        kind = kind_of(name)
        variant = name.removeprefix(kind)
        if variant not in variants:
            variants.append(variant)
        place, number = KINDS.index(kind), variants.index(variant)
        others = style.MARKERS[len(KINDS) : -1]  # the last one is too thin
        marker = others[(number - 1 + place) % len(others)] if variant else style.MARKERS[place]
        step = 1 + (number - 1) % 3 if variant else 0
        red, green, blue = (SHADES[step] * part for part in to_rgb(style.COLOURS[place]))
        look = style.Look(place + 3 * number, to_hex((red, green, blue)), marker)
        found[name] = Look(look, style.LINES[step])
    return found


def curve(row: Experiment, method: Method, runs: dict[int, dict], name: str) -> curves.Curve:
    """A method's learning curve."""
    length = min(len(run["curves"][name]) for run in runs.values())
    measured = pd.DataFrame({seed: run["curves"][name][:length] for seed, run in runs.items()}, dtype=float)
    seeds = curves.smoothed(measured, WINDOW)
    value, interval = statistics.estimate(seeds.to_numpy().T, statistics.interquartile_mean)
    low, high = interval or (np.nan, np.nan)
    summary = pd.DataFrame({"value": value, "low_95": low, "high_95": high})
    return curves.Curve(row.title, method.title, curves.metric(name), summary, seeds, measured)


def split(row: Experiment, found: Found) -> list[list[str]]:
    """The methods in rows of panels: all in one or, where they are many, each kind with its variants in the first row
    that has space for all of them, and the baseline in every one.
    """
    if len(found) <= CROWD:
        return [list(found)]
    kinds: dict[str, list[str]] = {}
    for method in found:
        if method != row.baseline:
            kinds.setdefault(kind_of(method), []).append(method)
    rows: list[list[str]] = []
    for members in kinds.values():
        for one in rows:
            if len(one) + len(members) < CROWD:
                one += members
                break
        else:
            rows.append(members)
    return [[row.baseline] * (row.baseline in found) + members for members in rows]


@style.printed
def learning(row: Experiment, found: Found, methods: Methods) -> Figure:
    """Learning curves of an experiment: before and after the update, a line a method with its seeds or its interval.
    Where success is reported, a third panel has what every run finds before the update and reaches after it.
    """
    rows, drawn = split(row, found), looks(methods)
    succeeds = all("success" in run["test"] for runs in found.values() for run in runs.values())
    figure, axes = style.panels(len(rows), 2 + succeeds)
    more = []
    for members, panels in zip(rows, axes, strict=True):
        for panel, name in zip(panels, ("before_update", "after_update"), strict=False):
            settled = []
            for method in members:
                one = curve(row, methods[method], found[method], name)
                more += curves.draw_curve(panel, one.summary.index.to_numpy(), one, *drawn[method], named=True)
                settled.append(one.extent.iloc[round(START * len(one.extent)) :])
            panel.set(xlabel="iteration", ylabel=f"return {one.metric.label}", ylim=style.span(settled))
        if succeeds:
            exploration(panels[2], {method: found[method] for method in members}, drawn)
    figure.suptitle(row.title)
    figure.supxlabel(NOTE, fontsize=6)
    style.legend_below(figure, *more)
    return figure


def exploration(panel: Axes, found: Found, drawn: Mapping[str, Look]) -> None:
    """What every run finds before the update and what it reaches after it: a point a run."""
    panel.axline((0, 0), slope=1, color=style.GREY, linewidth=0.6)
    highest = 0.0
    for method, runs in found.items():
        points = np.array([(share_found(run), after(run, 1, "success")) for run in runs.values()])
        panel.plot(*points.T, **drawn[method].look.drawn, linestyle="", alpha=0.8)
        highest = max(highest, float(points.max()))
    limits = (-0.03, highest + 0.05)
    panel.set(xlabel="share of test tasks found before the update", ylabel="success rate after it", xlim=limits,
              ylim=limits)  # fmt: skip


@style.printed
def verdicts(shown: Sequence[tuple[Experiment, Found]], methods: Methods) -> Figure:
    """The primary endpoint of up to four experiments: on the left of each the seeds of both methods, joined in pairs;
    on the right their differences, with the mean and its interval.
    """
    count = -(-len(shown) // 2)
    figure, axes = style.panels(count, 4, width=1.7, height=2.1, gridspec_kw={"width_ratios": [3, 2, 3, 2]})
    drawn = looks(methods)
    for (row, found), (levels, apart) in zip(shown, axes.reshape(-1, 2), strict=False):
        pair = [(row.baseline, found[row.baseline]), (row.proposed, found[row.proposed])]
        values = [{seed: MEASURES["return_1"](run) for seed, run in runs.items()} for _, runs in pair]
        for seed in values[0].keys() & values[1].keys():
            levels.plot([0, 1], [one[seed] for one in values], color=style.GREY, linewidth=0.6, zorder=1)
        for place, (method, _) in enumerate(pair):
            drawing = drawn[method].look.drawn | {"linestyle": "", "label": methods[method].title}
            levels.plot([place] * len(values[place]), [*values[place].values()], **drawing)
        levels.set(title=row.title, xlim=(-0.4, 1.4), xticks=[], ylabel="return after 1 update")
        difference = primary(row, found)
        value, interval = difference.compared.difference
        apart.axhline(0, color=style.GREY, linewidth=0.6)
        apart.plot([0] * len(difference.values), difference.values, "o", color=style.GREY, alpha=0.7)
        if interval:
            apart.vlines(0.3, *interval, color=style.BLACK)
        apart.plot([0.3], [value], "_", color=style.BLACK, markersize=8)
        apart.set(title="difference", xlim=(-0.4, 0.7), xticks=[])
    for empty in axes.reshape(-1, 2)[len(shown) :].ravel():
        empty.set_axis_off()
    figure.supxlabel("a point a seed; lines join seeds; bar: mean difference with its 95% interval", fontsize=6)
    style.legend_below(figure)
    return figure
