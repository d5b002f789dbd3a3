"""progress.csv, written as a training run writes it."""

import pandas as pd


def write_progress(folder, curves):
    """Write a run's curves: tag -> values of iterations 0, 1, …, or iteration -> value."""
    table = pd.DataFrame({tag: pd.Series(values, dtype=float) for tag, values in curves.items()})
    table.rename_axis("iteration").to_csv(folder / "progress.csv", lineterminator="\n")
