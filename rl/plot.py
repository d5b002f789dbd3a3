"""Pictures of runs and evaluations."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from rl.evaluation import summarize

# Okabe and Ito's palette, told apart by colour-blind readers.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"


def adaptation(path, returns, config):
    """Draw the return against the number of inner updates: a thin line a task, the mean with its 95% interval.

    Args:
        path: the picture's file.
        returns: sequence of U + 1 arrays [K, E].
        config: `Config`, for the title.
    """
    updates = np.arange(len(returns))
    per_task = np.stack([values.mean(axis=1) for values in returns])
    summaries = [summarize(values) for values in returns]
    figure, axes = pyplot.subplots(figsize=(5.0, 3.4), layout="constrained")
    axes.plot(updates, per_task, color=GREY, linewidth=0.5, alpha=0.5)
    axes.plot([], [], color=GREY, linewidth=0.8, label=f"each of {per_task.shape[1]} tasks")
    axes.errorbar(
        updates,
        [summary.mean for summary in summaries],
        yerr=[summary.half_width for summary in summaries],
        color=BLUE,
        marker="o",
        capsize=3,
        label="mean, 95% interval",
    )
    axes.set_xticks(updates)
    axes.set_xlabel("inner updates")
    axes.set_ylabel("return of an episode")
    axes.set_title(f"{config.env_name}, {config.method}", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
