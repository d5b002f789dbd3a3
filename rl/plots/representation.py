"""How alike tasks are represented: linear CKA on the same observations, layer by layer and step by step."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rl.drawing import label_columns
from rl.errors import UserError
from rl.evaluation import runs
from rl.evaluation.similarity import Similarity, similarity
from rl.plots import style

KINDS = ("output", "modulators")
NARROWEST = 0.01  # what the colours span at least: smaller differences are none
BLANK = "#DDDDDD"
# The maps of an activation of an evaluation: (name, number of the evaluation) -> one for each number of updates.
Rows = dict[tuple[str, int], list[Similarity]]
LEGEND = (
    "above a map: mean over pairs of tasks [95% interval over tasks]; null: the same of permuted observations "
    "(its 95th percentile); grey: a task with itself, or undefined"
)


def representation(
    folder: Path, output: Path, against: Path | None = None, frame: style.Frame = style.OWN
) -> tuple[list[Path], list[str]]:
    """Draw heat maps of the similarity between tasks: PNG, PDF and all numbers as JSON.

    Args:
        folder: an evaluation with activations.
        output: path of the files without suffix.
        against: another evaluation, drawn row by row below the first.
        frame: title and size.

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
    rows = dict(sorted(
        ((name, number), maps)
        for number, evaluation in enumerate(evaluations)
        for name, maps in maps_of(evaluation).items()
    ))  # fmt: skip
    numbers = {
        "environment": evaluations[0].environment,
        "same_probe_observations": same,
        "evaluations": [describe(evaluation, number, rows) for number, evaluation in enumerate(evaluations)],
    }
    lines = [
        f"{evaluation.method}: {len(evaluation.probe['tasks'])} tasks, {len(probe)} probe observations"
        for evaluation, probe in zip(evaluations, probes, strict=True)
    ]
    lines.append("before adaptation all tasks have the same policy: all similarities are 1, and not drawn")
    if not same:
        lines.append("the two evaluations have probe observations of their own; test.py --probe shares them")
    files = style.save(draw(evaluations, rows, frame), output, frame.size)
    return [*files, style.save_numbers(output, numbers)], lines


def maps_of(evaluation: runs.Evaluation) -> dict[str, list[Similarity]]:
    """The similarities of an evaluation: name of an activation -> one for each number of updates."""
    return {
        name: [similarity(values[:, updates]) for updates in range(values.shape[1])]
        for name, values in evaluation.probe.items()
        if name.rpartition(".")[2] in KINDS
    }


def describe(evaluation: runs.Evaluation, number: int, rows: Rows) -> dict[str, Any]:
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
def draw(evaluations: Sequence[runs.Evaluation], rows: Rows, frame: style.Frame = style.OWN) -> Figure:
    """The maps: a row an activation (of each evaluation), a column a number of updates; a scale for each activation.

    Before adaptation all tasks have the same policy, and all similarities are 1: that column is left out.
    """
    drawn = {row: maps[1:] for row, maps in rows.items()}
    updates = range(1, len(next(iter(rows.values()))))
    figure, axes = style.panels(len(rows), len(updates))
    width = 1.25 * len(updates) + 2.0  # inches; the rest is for the tasks' names and the scales
    figure.set_size_inches(frame.size or (width, 1.4 * len(rows) + 0.8))
    for name in dict.fromkeys(name for name, _ in rows):
        together = {row: panels for row, panels in zip(rows, axes, strict=True) if row[0] == name}
        low, high = limits([found.cka for row in together for found in drawn[row]])
        for row, panels in together.items():
            for panel, found in zip(panels, drawn[row], strict=True):
                image = panel.imshow(others(found.cka), vmin=low, vmax=high, cmap=style.SEQUENTIAL)
                panel.set(xticks=[], yticks=[], facecolor=BLANK)
                panel.spines[:].set_visible(False)
                panel.set_title(caption(found), fontsize=6)
            evaluation, (layer, _, kind) = evaluations[row[1]], name.partition(".")
            tasks = evaluation.probe["tasks"]
            panels[0].set_yticks(range(len(tasks)), [evaluation.label(task) for task in tasks], fontsize=6)
            panels[0].set_ylabel(f"{textwrap.fill(evaluation.method, 24)}\n{layer} {kind}", fontsize=7)
        bar = figure.colorbar(image, ax=np.concatenate(list(together.values())), aspect=12, label="linear CKA")
        bar.ax.ticklabel_format(axis="y", useOffset=False)
    label_columns(axes[0], updates, 24)
    figure.suptitle(evaluations[0].environment if frame.title is None else frame.title, fontsize=8)
    figure.supxlabel(textwrap.fill(LEGEND, round(20 * width)), fontsize=6)
    return figure


def others(cka: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """The similarities without those of a task with itself, which are 1."""
    return np.where(np.eye(len(cka), dtype=bool), np.nan, cka)


def limits(matrices: Iterable[Float[np.ndarray, "_ _"]]) -> tuple[float, float]:
    """Of the colours: the least and the largest similarity of two different tasks, at least `NARROWEST` apart."""
    values = np.concatenate([others(cka)[np.isfinite(others(cka))] for cka in matrices])
    if not values.size:
        return 0.0, 1.0
    return min(float(values.min()), float(values.max()) - NARROWEST), float(values.max())


def caption(found: Similarity) -> str:
    """What stands above a map: the mean over pairs, its interval, the null."""
    if found.mean is None:
        return "one task:\nno pairs" if len(found.cka) == 1 else "undefined:\nno variation"
    low, high = found.interval or (np.nan, np.nan)
    between = "" if found.interval is None else f" [{low:.2f}, {high:.2f}]"
    return f"{found.mean:.2f}{between}\nnull {found.null_mean:.2f} (≤ {found.null_95th:.2f})"
