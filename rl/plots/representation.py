"""How alike tasks are represented: linear CKA on the same observations, layer by layer and step by step."""

import numpy as np

from rl.errors import UserError
from rl.plots import runs, style
from rl.plots.similarity import similarity
from rl.plots.trajectories import named

KINDS = ("output", "modulators")


def representation(folder, output, against=None):
    """Draw heat maps of the similarity between tasks: PNG, PDF and all numbers as JSON.

    Args:
        folder: path of an evaluation with activations.
        output: path of the files without suffix.
        against: path of another evaluation, drawn row by row below the first.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    evaluations = [runs.read_evaluation(path) for path in (folder, against) if path is not None]
    runs.same_environment(evaluations)
    if against is not None and evaluations[0].config.num_test_steps != evaluations[1].config.num_test_steps:
        raise UserError(f"{against}: made another number of updates than {folder}")
    probes = [evaluation.probe["observations"] for evaluation in evaluations]
    same = all(np.array_equal(probe, probes[0]) for probe in probes)
    rows = {}
    for number, evaluation in enumerate(evaluations):
        for layer, maps in maps_of(evaluation).items():
            rows[layer, number] = maps
    rows = dict(sorted(rows.items()))
    numbers = {
        "environment": evaluations[0].environment,
        "same_probe_observations": same,
        "evaluations": [describe(evaluation, number, rows) for number, evaluation in enumerate(evaluations)],
    }
    lines = [
        f"{evaluation.method}: {len(evaluation.probe['tasks'])} tasks, {len(probe)} probe observations"
        for evaluation, probe in zip(evaluations, probes, strict=True)
    ]
    if not same:
        lines.append("the two evaluations have probe observations of their own; test.py --probe shares them")
    files = style.save(draw(evaluations, rows), output)
    return [*files, style.save_numbers(output, numbers)], lines


def maps_of(evaluation):
    """The similarities of an evaluation: name of an activation -> a `Similarity` for each number of updates."""
    return {
        name: [similarity(values[:, updates]) for updates in range(values.shape[1])]
        for name, values in evaluation.probe.items()
        if name.rpartition(".")[2] in KINDS
    }


def describe(evaluation, number, rows):
    """One evaluation's part of the JSON file."""
    return {
        "folder": str(evaluation.path),
        "method": evaluation.method,
        "tasks": [evaluation.tasks[task] for task in evaluation.probe["tasks"]],
        "probe_observations": len(evaluation.probe["observations"]),
        "similarity": {
            name: [
                {
                    "updates": updates,
                    "cka": [[value if np.isfinite(value) else None for value in row] for row in found.cka.tolist()],
                    "mean_off_diagonal": found.mean,
                    "interval_95": found.interval,
                    "null_mean": found.null_mean,
                    "null_95th_percentile": found.null_95th,
                }
                for updates, found in enumerate(maps)
            ]
            for (name, owner), maps in rows.items()
            if owner == number
        },
    }


@style.printed
def draw(evaluations, rows):
    """The maps: a row an activation (of each evaluation), a column a number of updates."""
    count = len(next(iter(rows.values())))
    figure, axes = style.panels(len(rows), count, width=1.4, height=1.4)
    for panels, ((name, number), maps) in zip(axes, rows.items(), strict=True):
        layer, _, kind = name.partition(".")
        for panel, found in zip(panels, maps, strict=True):
            image = panel.imshow(found.cka, vmin=0, vmax=1, cmap=style.SEQUENTIAL)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            panel.set_title(caption(found), fontsize=6)
        tasks = evaluations[number].probe["tasks"]
        panels[0].set_yticks(range(len(tasks)), [evaluations[number].label(task) for task in tasks], fontsize=6)
        panels[0].set_ylabel(f"{evaluations[number].method}\n{layer} {kind}")
    for updates, panel in enumerate(axes[0]):
        panel.text(0.5, 1.45, named(updates), transform=panel.transAxes, ha="center", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, label="linear CKA between tasks")
    figure.suptitle(evaluations[0].environment, fontsize=8)
    return figure


def caption(found):
    """What stands above a map: the mean over pairs, its interval, the null."""
    if found.mean is None:
        return "undefined:\nno variation"
    low, high = found.interval or (np.nan, np.nan)
    between = "" if found.interval is None else f" [{low:.2f}, {high:.2f}]"
    return f"{found.mean:.2f}{between}\nnull {found.null_mean:.2f} (≤ {found.null_95th:.2f})"
