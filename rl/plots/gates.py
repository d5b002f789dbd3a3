"""What the gates of a neuromodulated policy do between tasks and between adaptation steps."""

import numpy as np
from matplotlib.figure import Figure

from rl.errors import UserError
from rl.evaluation import gates as numerics
from rl.evaluation import runs, similarity
from rl.evaluation.statistics import bootstrap
from rl.plots import style

SHARES = {
    "negative": "negative\n(g < 0)",
    "saturated": f"saturated\n(|g| > {numerics.SATURATED})",
    "constant": "sign never\nchanges",
}
TERMS = (
    "gate: the factor g, from −1 to 1, of a hidden unit at one observation; negative: it turns the unit's sign;\n"
    "saturated: it lets the unit pass whole (hard gates always do); both after the last update;\n"
    "sign never changes: units whose gate has one sign for all tasks, updates and observations;"
)


def gates(folder, output):
    """Draw what gates do on the probe observations: PNG, PDF and all numbers as JSON.

    Args:
        folder: path of an evaluation, with activations, of a neuromodulated policy.
        output: path of the files without suffix.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    evaluation = runs.read_evaluation(folder)
    if not evaluation.config.neuromodulation:
        raise UserError(f"{folder}: a plain policy ({evaluation.method}) has no gates; expected a neuromodulated one")
    layers = {name.partition(".")[0]: values for name, values in evaluation.probe.items() if name.endswith(".gates")}
    found = {layer: numerics.shares(values) for layer, values in layers.items()}
    spread = {layer: intervals(values) for layer, values in layers.items()}
    numbers = {
        "environment": evaluation.environment,
        "method": evaluation.method,
        "tasks": [evaluation.tasks[task] for task in evaluation.probe["tasks"]],
        "probe_observations": len(evaluation.probe["observations"]),
        "layers": {layer: {name: plain(value) for name, value in shares.items()} for layer, shares in found.items()},
        "intervals_95": {
            layer: {name: [plain(end) for end in ends] for name, ends in shares.items()}
            for layer, shares in spread.items()
        },
    }
    lines = [
        f"{layer}: {shares['negative'][-1]:.1%} negative, {shares['saturated'][-1]:.1%} saturated after the last "
        f"update, {shares['constant']:.1%} of units never change sign"
        for layer, shares in found.items()
    ]
    files = style.save(draw(evaluation, layers, found, spread), output)
    return [*files, style.save_numbers(output, numbers)], lines


def plain(value):
    """An array as a list."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def intervals(values):
    """95% intervals of a layer's shares, tasks being resampled; those of `constant`, of all tasks together, has none.

    Args:
        values: gates [D, U + 1, N, H].

    Returns:
        name as in `rl.evaluation.gates.shares` -> (low, high), each [U + 1] or [U]; empty for fewer than 3 tasks.
    """
    if len(values) < 3:
        return {}
    negative = values < 0
    by_task = {
        "negative": negative.mean(axis=(2, 3)),
        "saturated": (np.abs(values) > numerics.SATURATED).mean(axis=(2, 3)),
        "flips_between_steps": (negative[:, 1:] != negative[:, :-1]).mean(axis=(2, 3)),
    }
    found = {name: bootstrap([shares]) for name, shares in by_task.items()}
    pairs = np.array([(negative != other).mean(axis=(2, 3)) for other in negative])  # [D, D, U + 1]
    between = [similarity.interval(matrix, np.random.default_rng(0)) for matrix in np.moveaxis(pairs, 2, 0)]
    return found | {"flips_between_tasks": tuple(np.transpose(between))}


@style.printed
def draw(evaluation, layers, found, spread):
    """The figure: shares, flips between tasks, flips between steps; below, each layer's units task by task."""
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.0, 1.0])
    shares, tasks, steps = top.subplots(1, 3)
    for place, (layer, colour) in enumerate(zip(found, style.colours(), strict=False)):
        values, low_high = found[layer], spread[layer]
        aside = (place - (len(found) - 1) / 2) / len(found)  # so that layers hide nothing of one another
        heights = [float(np.ravel(values[name])[-1]) for name in SHARES]
        bars = shares.bar(np.arange(len(SHARES)) + 0.8 * aside, heights, 0.8 / len(found), color=colour, label=layer)
        for bar, height, name in zip(bars, heights, SHARES, strict=True):
            middle = bar.get_x() + bar.get_width() / 2
            low, high = (ends[-1] for ends in low_high.get(name, ([height], [height])))
            shares.vlines(middle, low, high, color=style.BLACK, linewidth=0.8)
            shares.annotate(f"{height:.2f}", (middle, max(height, high)), (0, 1), textcoords="offset points",
                            ha="center", fontsize=6)  # fmt: skip
        for panel, name, first in ((tasks, "flips_between_tasks", 0), (steps, "flips_between_steps", 1)):
            if values[name] is None:
                continue
            updates = np.arange(first, first + len(values[name])) + 0.1 * aside
            panel.plot(updates, values[name], "o-", color=colour)
            if name in low_high:
                panel.vlines(updates, *low_high[name], color=colour, linewidth=0.8)
    shares.set_xticks(range(len(SHARES)), SHARES.values())
    shares.set(title="signs and sizes", ylabel="share of gates (right: of units)", ylim=(0, 1.15))
    tasks.set(title="between tasks", xlabel="inner updates", ylim=(0, None),
              ylabel="share of gates whose sign\ndiffers between two tasks")  # fmt: skip
    steps.set(title="between updates", xlabel="inner update", ylim=(0, None),
              ylabel="share of gates whose sign\nthis update changes")  # fmt: skip
    style.whole_numbers(tasks.xaxis)
    style.whole_numbers(steps.xaxis)
    top.legend(*shares.get_legend_handles_labels(), loc="outside upper center", ncols=len(found),
               title=f"{evaluation.environment}, {evaluation.method}")  # fmt: skip

    below = bottom.subplots(1, len(layers), squeeze=False)[0]
    for panel, (layer, values) in zip(below, layers.items(), strict=True):
        negative = (values[:, -1] < 0).mean(axis=1)
        order = np.argsort(negative.mean(axis=0), kind="stable")
        image = panel.imshow(negative[:, order], aspect="auto", vmin=0, vmax=1, cmap=style.SEQUENTIAL,
                             interpolation="nearest")  # fmt: skip
        panel.set(xlabel=f"unit of {layer}, sorted", ylabel="task")
        chosen = evaluation.probe["tasks"]
        panel.set_yticks(range(len(chosen)), [evaluation.label(task) for task in chosen], fontsize=6)
    bottom.colorbar(image, ax=below, label="share of observations with a\nnegative gate, last update")
    known = "upright lines: 95% intervals over tasks" if all(spread.values()) else "fewer than 3 tasks: no intervals"
    bottom.supxlabel(f"{TERMS}\n{known}", fontsize=6.5)
    return figure
