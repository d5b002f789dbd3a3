"""What the gates of a neuromodulated policy do between tasks and between adaptation steps."""

import numpy as np
from matplotlib.figure import Figure

from rl import gates as numerics
from rl.errors import UserError
from rl.plots import runs, style

SHARES = {"negative": "negative", "saturated": f"|g| > {numerics.SATURATED}", "constant": "sign never\nchanges"}


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
    found = {layer: numerics.summarize(values) for layer, values in layers.items()}
    numbers = {
        "environment": evaluation.environment,
        "method": evaluation.method,
        "tasks": [evaluation.tasks[task] for task in evaluation.probe["tasks"]],
        "probe_observations": len(evaluation.probe["observations"]),
        "layers": {layer: {name: plain(value) for name, value in shares.items()} for layer, shares in found.items()},
    }
    lines = [
        f"{layer}: {shares['negative'][-1]:.1%} negative, {shares['saturated'][-1]:.1%} saturated after the last "
        f"update, {shares['constant']:.1%} of units never change sign"
        for layer, shares in found.items()
    ]
    files = style.save(draw(evaluation, layers, found), output)
    return [*files, style.save_numbers(output, numbers)], lines


def plain(value):
    """An array as a list."""
    return value.tolist() if isinstance(value, np.ndarray) else value


@style.printed
def draw(evaluation, layers, found):
    """The figure: shares, flips between tasks, flips between steps; below, each layer's units task by task."""
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.1, 1.0])
    shares, tasks, steps = top.subplots(1, 3)
    for place, (layer, colour) in enumerate(zip(found, style.colours(), strict=False)):
        values = found[layer]
        at = np.arange(len(SHARES)) + (place - (len(found) - 1) / 2) * 0.8 / len(found)
        heights = [float(np.ravel(values[name])[-1]) for name in SHARES]
        bars = shares.bar(at, heights, 0.8 / len(found), color=colour, label=layer)
        shares.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=6, padding=1)
        if values["flips_between_tasks"] is not None:
            tasks.plot(values["flips_between_tasks"], "o-", color=colour, label=layer)
        steps.plot(np.arange(1, len(values["negative"])), values["flips_between_steps"], "o-", color=colour)
    shares.set_xticks(range(len(SHARES)), SHARES.values())
    shares.set(ylabel="share of gates (or of units)", ylim=(0, 1.3))
    tasks.set(xlabel="inner updates", ylabel="share of gates that differ\nbetween two tasks", ylim=(0, None))
    steps.set(xlabel="inner update", ylabel="share of gates flipped\nby the update", ylim=(0, None))
    style.whole_numbers(tasks.xaxis)
    style.whole_numbers(steps.xaxis)
    shares.legend(loc="upper center", ncols=len(found))
    top.suptitle(f"{evaluation.environment}, {evaluation.method}", fontsize=8)

    below = bottom.subplots(1, len(layers), squeeze=False)[0]
    for panel, (layer, values) in zip(below, layers.items(), strict=True):
        negative = (values[:, -1] < 0).mean(axis=1)
        order = np.argsort(negative.mean(axis=0), kind="stable")
        image = panel.imshow(negative[:, order], aspect="auto", vmin=0, vmax=1, cmap=style.SEQUENTIAL,
                             interpolation="nearest")  # fmt: skip
        panel.set(xlabel=f"unit of {layer}, sorted", ylabel="task")
        chosen = evaluation.probe["tasks"]
        panel.set_yticks(range(len(chosen)), [evaluation.label(task) for task in chosen], fontsize=6)
    bottom.colorbar(image, ax=below, label="share of observations\nwith a negative gate")
    return figure
