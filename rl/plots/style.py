"""What all figures share: sizes and colours for print, and how their files are written."""

import csv
import io
import itertools
import json
import os
import textwrap
from pathlib import Path

import matplotlib
from matplotlib.ticker import MaxNLocator

from rl import drawing
from rl.drawing import BLACK, BLUE, COLOURS, GREEN, GREY, VERMILION  # noqa: F401
from rl.errors import UserError
from rl.files import replacing

LINES = ("-", "--", ":", "-.")
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
PANEL = (3.4, 2.4)  # inches; two panels fill the width of a page
LEGEND_WIDTH = 48  # letters
LEGEND_LINE = 0.16  # inches
LEGEND_LETTER = 0.05  # inches; its marks and gaps take as much as twelve
SUFFIXES = (".png", ".pdf", ".csv", ".json")  # of what plot.py writes

_SETTINGS = {
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


def printed(draw):
    """Decorate a drawing function: everything that it makes takes the project's settings."""
    return matplotlib.rc_context(_SETTINGS)(draw)


def panels(rows, columns, width=PANEL[0], height=PANEL[1], **options):
    """A figure of equal panels: (figure, array of axes [rows, columns])."""
    return drawing.panels(rows, columns, width, height, **options)


def colours():
    """The palette, again and again."""
    return itertools.cycle(COLOURS)


def whole_numbers(axis):
    """Ticks at whole numbers, not too many."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def span(curves):
    """Limits (low, high) of an axis that shows curves whole. An interval of few seeds can be many times wider; it is
    cut there, lest nothing else be seen.
    """
    low, high = min(map(min, curves)), max(map(max, curves))
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def legend_below(figure, *more):
    """One legend for all panels, under them, where it hides nothing; the figure grows by its lines.

    Args:
        figure: whose panels' labelled lines are gathered, each label once.
        more: further lines of the legend.
    """
    handles = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles |= {handle.get_label(): handle for handle in more}
    width, height = figure.get_size_inches()
    labels = [textwrap.fill(label, LEGEND_WIDTH) for label in handles]
    longest = max((len(line) for label in labels for line in label.splitlines()), default=0)
    columns = max(1, min(len(handles), int(width / (LEGEND_LETTER * (longest + 12)))))
    lines = sum(label.count("\n") + 1 for label in labels) / columns
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=columns)
    figure.set_size_inches(width, height + LEGEND_LINE * lines)


@printed
def save(figure, path):
    """Write a figure as PNG and PDF.

    Args:
        figure: the figure.
        path: the files' common path without suffix.

    Returns:
        list of the two paths

    Raises:
        UserError: they cannot be written.
    """
    files = [with_suffix(path, suffix) for suffix in (".png", ".pdf")]
    for file in files:
        # Neither the hour nor the version of the library, so that the same numbers make the same file.
        metadata = {"CreationDate": None, "Producer": None} if file.suffix == ".pdf" else {"Software": None}
        content = io.BytesIO()
        figure.savefig(content, format=file.suffix[1:], metadata=metadata)
        figure.set_layout_engine("none")  # once is enough, and half of the time
        write_bytes(file, content.getvalue())
    return files


def place(output, name):
    """The files' common path without suffix, from what the user typed: a path with or without suffix, or a folder."""
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        return Path(output, name)
    path = Path(output)
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def save_table(path, columns, rows):
    """Write a CSV file; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    write_bytes(with_suffix(path, ".csv"), text.getvalue().encode())
    return with_suffix(path, ".csv")


def save_numbers(path, content):
    """Write a JSON file."""
    write_bytes(with_suffix(path, ".json"), (json.dumps(content, indent=2) + "\n").encode())
    return with_suffix(path, ".json")


def with_suffix(path, suffix):
    """The path with a suffix added; dots in a name are no suffix."""
    return Path(f"{path}{suffix}")


def write_bytes(path, content):
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
