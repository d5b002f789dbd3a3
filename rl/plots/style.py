"""What all figures share: sizes and colours for print, and how their files are written."""

import contextlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Shaped
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rl import drawing
from rl.drawing import BLACK, BLUE, COLOURS, GREEN, GREY, VERMILION  # noqa: F401
from rl.errors import UserError
from rl.files import is_of_run, replacing

LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
PANEL = (3.4, 2.4)  # inches; two panels fill the width of a page
SUFFIXES = (".png", ".pdf", ".csv", ".json")  # of what plot.py writes

_SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # letters stay letters
    "savefig.dpi": 220,
}

Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def printed(draw: Drawing) -> Drawing:
    """Decorate a drawing function: everything that it makes takes the project's settings."""
    return matplotlib.rc_context(_SETTINGS)(draw)


def panels(
    rows: int, columns: int, width: float = PANEL[0], height: float = PANEL[1], **options: Any
) -> tuple[Figure, Shaped[np.ndarray, "{rows} {columns}"]]:
    """A figure of equal panels, with its axes."""
    return drawing.panels(rows, columns, width, height, **options)


def colours() -> Iterator[str]:
    """The palette, again and again."""
    return itertools.cycle(COLOURS)


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers, not too many."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def span(curves: Sequence[pd.DataFrame | pd.Series]) -> tuple[float, float]:
    """Limits of an axis that shows curves whole. An interval of few seeds can be many times wider; it is cut there,
    lest nothing else be seen.
    """
    values = np.concatenate([np.ravel(curve) for curve in curves])
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def legend_below(figure: Figure, *more: Artist) -> None:
    """One legend for all panels, each label once, hung below the figure: `save` makes room for it.

    Args:
        figure: whose panels' labelled lines are gathered.
        more: further lines of the legend.
    """
    lines = [line for panel in figure.axes for line in panel.get_legend_handles_labels()[0]]
    labelled = {str(line.get_label()): line for line in [*lines, *more]}
    grid = figure.axes[0].get_gridspec()
    columns = 1 if grid is None else grid.ncols
    figure.legend(labelled.values(), labelled, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns)


@printed
def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF, whose paths are returned.

    Args:
        figure: cut to what is drawn, which may lie outside of it.
        path: the files' common path without suffix.

    Raises:
        UserError: they cannot be written, or a file that plot.py did not write is there.
    """
    check_place(path)
    contents = {with_suffix(path, suffix): io.BytesIO() for suffix in (".png", ".pdf")}
    for file, content in contents.items():
        # Neither the hour nor the version of the library, so that the same numbers make the same file.
        metadata = {"CreationDate": None, "Producer": None} if file.suffix == ".pdf" else {"Software": None}
        figure.savefig(content, format=file.suffix[1:], metadata=metadata, bbox_inches="tight")
        figure.set_layout_engine("none")  # once is enough, and half of the time
    # The PDF is first: it tells that the others are plot.py's.
    for file, content in reversed(contents.items()):
        write_bytes(file, content.getvalue())
    return list(contents)


def check_place(path: Path) -> None:
    """Refuse to write beside, and with that over, files of that name that plot.py did not write.

    Args:
        path: the files' common path without suffix.

    Raises:
        UserError: there are some, or a run's folder has another use for the name.
    """
    with contextlib.suppress(OSError):
        drawn = with_suffix(path, ".pdf").read_bytes()
        # As `save` writes it: Matplotlib itself adds a date.
        if b"/Creator (Matplotlib" in drawn and b"/CreationDate" not in drawn:
            return
    files = [with_suffix(path, suffix) for suffix in SUFFIXES]
    found = [file for file in files if os.path.lexists(file)]
    if (path.parent / "config.json").exists() and path.name != "adaptation":
        found += [file for file in files if is_of_run(file.name)]
    if found:
        raise UserError(f"{found[0]}: is not of plot.py, which replaces its own pictures alone; expected another name")


def place(output: str, name: str) -> Path:
    """The files' common path without suffix, from what the user typed: a path with or without suffix, or a folder."""
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        return Path(output, name)
    path = Path(output)
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def save_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    """Write rows as a CSV file; None becomes an empty field."""
    return save_frame(path, pd.DataFrame(rows, columns=list(columns)))


def save_frame(path: Path, table: pd.DataFrame) -> Path:
    """Write a table as a CSV file, without its index; NaN becomes an empty field."""
    write_bytes(with_suffix(path, ".csv"), table.to_csv(index=False, lineterminator="\n").encode())
    return with_suffix(path, ".csv")


def save_numbers(path: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file."""
    write_bytes(with_suffix(path, ".json"), (json.dumps(content, indent=2) + "\n").encode())
    return with_suffix(path, ".json")


def with_suffix(path: Path, suffix: str) -> Path:
    """The path with a suffix added; dots in a name are no suffix."""
    return Path(f"{path}{suffix}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in a folder that is made where there is none.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
