"""What the gates of a neuromodulated policy do between tasks and between adaptation steps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure

from rl.errors import UserError
from rl.evaluation import gates as numerics
from rl.evaluation import runs, similarity
from rl.evaluation.statistics import Ends, bootstrap
from rl.plots import style

SHARES = {
    "negative": "negative\n(g < 0)",
    "saturated": f"saturated\n(|g| > {numerics.SATURATED})",
    "constant": "sign never\nchanges",
}
HATCHES = ("", "////", "....", "xxxx", "----")  # layers differ in more than colour
TERMS = (
    "gate: the factor g, from −1 to 1, of a hidden unit at one observation; negative: it flips the unit's sign;\n"
    "saturated: the unit keeps its size (hard gates always let it); both after the last update;\n"
    "sign never changes: units whose gate has one sign for all tasks, updates and observations;"
)


def gates(folder: Path, output: Path, frame: style.Frame = style.OWN) -> tuple[list[Path], list[str]]:
    """Draw what gates do on the probe observations: PNG, PDF and all numbers as JSON.

    Args:
        folder: an evaluation, with activations, of a neuromodulated policy.
        output: path of the files without suffix.
        frame: title and size.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    evaluation = runs.read_evaluation(folder)
    if not evaluation.config.neuromodulation:
        raise UserError(f"{folder}: a plain policy ({evaluation.method}) has no gates; expected a neuromodulated one")
    layers = {name.partition(".")[0]: values for name, values in evaluation.probe.items() if name.endswith(".gates")}
    if not layers:
        raise UserError(f"{folder / 'probe.npz'}: expected the gates of a neuromodulated policy, found none in it")
    shares = {layer: numerics.shares(values) for layer, values in layers.items()}
    numbers = {
        "environment": evaluation.environment,
        "method": evaluation.method,
        "tasks": [evaluation.tasks[task] for task in evaluation.probe["tasks"]],
        "probe_observations": len(evaluation.probe["observations"]),
        "layers": plain(shares),
        "intervals_95": plain({layer: intervals(values) for layer, values in layers.items()}),
    }
    lines = [
        f"{layer}: {numbers['negative'][-1]:.1%} negative, {numbers['saturated'][-1]:.1%} saturated after the last "
        f"update, {numbers['constant']:.1%} of units never change sign"
        for layer, numbers in shares.items()
    ]
    files = style.save(draw(evaluation, layers, frame), output, frame.size)
    return [*files, style.save_numbers(output, numbers)], lines


def plain(content: Any) -> Any:
    """What JSON can hold of nested dicts and tuples of arrays."""
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items()}
    if isinstance(content, tuple):
        return [plain(value) for value in content]
    return content.tolist() if isinstance(content, np.ndarray) else content


def intervals(values: Float[np.ndarray, "K U N H"]) -> dict[str, Ends]:
    """95% intervals of a layer's shares, as `rl.evaluation.gates.shares` names them, tasks being resampled.

    `constant`, of all tasks together, has none; nor has anything with fewer than 3 tasks.
    """
    if len(values) < 3:
        return {}
    negative = values < 0
    by_task = {
        "negative": negative.mean(axis=(2, 3)),
        "saturated": (np.abs(values) > numerics.SATURATED).mean(axis=(2, 3)),
        "flips_between_steps": (negative[:, 1:] != negative[:, :-1]).mean(axis=(2, 3)),
    }
    pairs = np.array([(negative != other).mean(axis=(2, 3)) for other in negative])  # [K, K, U]
    between: list[Any] = [similarity.interval(matrix, np.random.default_rng(0)) for matrix in np.moveaxis(pairs, 2, 0)]
    low, high = np.transpose(between)
    return {name: bootstrap(shares) for name, shares in by_task.items()} | {"flips_between_tasks": (low, high)}


@style.printed
def draw(
    evaluation: runs.Evaluation, layers: dict[str, Float[np.ndarray, "..."]], frame: style.Frame = style.OWN
) -> Figure:
    """The figure: shares, flips between tasks, flips between updates; below, each layer's units task by task.

    Args:
        evaluation: for names.
        layers: name -> its gates [K, U, N, H].
        frame: title and size.
    """
    columns = min(3, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=frame.size or (7.0, 3.2 + 1.8 * rows), layout="constrained")
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.6, 0.6 + 1.8 * rows))
    draw_shares(top, layers)
    title = f"{evaluation.environment}, {evaluation.method}" if frame.title is None else frame.title
    top.legend(loc="outside upper center", ncols=min(4, len(layers)), title=title)
    below = bottom.subplots(rows, columns, squeeze=False)
    for unused in below.flat[len(layers) :]:
        unused.set_visible(False)
    for panel, (layer, values) in zip(below.flat, layers.items(), strict=False):
        negative = (values[:, -1] < 0).mean(axis=1)
        order = np.argsort(negative.mean(axis=0), kind="stable")
        image = panel.imshow(negative[:, order], aspect="auto", vmin=0, vmax=1, cmap=style.SEQUENTIAL,
                             interpolation="nearest")  # fmt: skip
        panel.set_xlabel(f"unit of {layer}, sorted")
        chosen: Any = evaluation.probe["tasks"] if panel in below[:, 0] else []
        panel.set_yticks(range(len(chosen)), [evaluation.label(task) for task in chosen], fontsize=6)
    bottom.colorbar(image, ax=below, label="share of observations with a\nnegative gate, last update")
    few = any(len(values) < 3 for values in layers.values())
    known = "fewer than 3 tasks: no intervals" if few else "upright lines: 95% intervals over tasks"
    bottom.supxlabel(f"{TERMS}\n{known}", fontsize=6.5)
    return figure


def draw_shares(figure: SubFigure, layers: dict[str, Float[np.ndarray, "..."]]) -> None:
    """Three panels: bars of `SHARES` after the last update; sign changes between tasks, and by each update."""
    shares, tasks, steps = figure.subplots(1, 3, squeeze=False)[0]
    for place, (layer, values) in enumerate(layers.items()):
        _, colour, marker = style.look(place)
        found, ends = numerics.shares(values), intervals(values)
        aside = (place - (len(layers) - 1) / 2) / len(layers)  # so that layers hide nothing of one another
        heights = [float(np.ravel(found[name])[-1]) for name in SHARES]
        bars = shares.bar(np.arange(len(SHARES)) + 0.8 * aside, heights, 0.8 / len(layers), color=colour, label=layer,
                          hatch=HATCHES[place % len(HATCHES)], edgecolor="white", linewidth=0)  # fmt: skip
        for bar, height, name in zip(bars, heights, SHARES, strict=True):
            middle = bar.get_x() + bar.get_width() / 2
            low, high = (end[-1] for end in ends.get(name, ([height], [height])))
            shares.vlines(middle, low, high, color=style.BLACK, linewidth=0.8)
            if len(layers) <= 3:  # there is no room for more
                shares.annotate(f"{height:.2f}", (middle, max(height, high)), (0, 1), textcoords="offset points",
                                ha="center", fontsize=6)  # fmt: skip
        for panel, name, first in ((tasks, "flips_between_tasks", 0), (steps, "flips_between_steps", 1)):
            if found[name] is not None:
                updates = np.arange(first, first + len(found[name])) + 0.1 * aside
                panel.plot(updates, found[name], color=colour, marker=marker)
                if name in ends:
                    panel.vlines(updates, *ends[name], color=colour, linewidth=0.8)
    shares.set_xticks(range(len(SHARES)), SHARES.values())
    shares.set(title="signs and sizes", ylabel="share of gates (right: of units)", ylim=(0, 1.15))
    tasks.set(title="between tasks", xlabel="inner updates", ylim=(0, None),
              ylabel="share of gates whose sign\ndiffers between two tasks")  # fmt: skip
    steps.set(title="between updates", xlabel="inner update", ylim=(0, None),
              ylabel="share of gates whose sign\nthis update changes")  # fmt: skip
    if not tasks.lines:
        tasks.text(0.5, 0.5, "one task: no pairs", ha="center", transform=tasks.transAxes, fontsize=7)
    style.whole_numbers(tasks.xaxis)
    style.whole_numbers(steps.xaxis)
