"""What all figures share: sizes, colours and markers for print, and how their files are written."""

import contextlib
import io
import json
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Shaped
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from rl import drawing
from rl.drawing import BLACK, BLUE, COLOURS, GREEN, GREY, VERMILION  # noqa: F401
from rl.errors import UserError
from rl.evaluation.intervals import Numbers
from rl.evaluation.statistics import FEWEST, Ends
from rl.files import is_of_run, replacing

LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "h", "p", "d", "1")
STATISTICS = {"mean": "mean", "iqm": "interquartile mean"}  # of `rl.evaluation.statistics`, in words
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
PANEL = (3.4, 2.4)  # inches; two panels fill the width of a page
SUFFIXES = (".png", ".pdf", ".csv", ".json")  # of what plot.py writes
TEXTS = (".md", ".tex")  # and of what `plot.py table` writes besides

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


class Frame(NamedTuple):
    """What a user may set of any picture.

    Attributes:
        title: instead of its own.
        size: width and height of the file in inches, its legend included.
        ylim: the ends of the y axis; of a picture with success rates, that of returns.
    """

    title: str | None = None
    size: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None


OWN = Frame()  # the picture's own


class Look(NamedTuple):
    """How one of several groups is drawn."""

    number: int
    colour: str
    marker: str

    @property
    def drawn(self) -> dict[str, Any]:
        """As arguments of matplotlib's."""
        return {"color": self.colour, "marker": self.marker} | ({"markersize": 7} if "$" in self.marker else {})


def look(number: int) -> Look:
    """That of a group by its number. No two have the same marker, however many there are: after the signs come numbers.
    After the palette come its colours darkened, then all of them again.
    """
    marker = MARKERS[number] if number < len(MARKERS) else f"${number + 1}$"
    turn, place = divmod(number, len(COLOURS))
    if turn % 2 == 0:
        return Look(number, COLOURS[place], marker)
    darker = COLOURS[(place + 3) % len(COLOURS)]  # far from the colour that it is a shade of
    red, green, blue = to_rgb(darker)
    return Look(number, to_hex((0.5 * red, 0.5 * green, 0.5 * blue)), marker)


def kind_of_line(number: int) -> Any:
    """That of one of several metrics by its number, no two alike: after matplotlib's own come dashes with ever more
    dots.
    """
    return LINES[number] if number < len(LINES) else (0, (6, 2) + (1, 2) * (number - 2))


def printed(draw: Drawing) -> Drawing:
    """Decorate a drawing function: everything that it makes takes the project's settings."""
    return matplotlib.rc_context(_SETTINGS)(draw)


def panels(
    rows: int, columns: int, width: float = PANEL[0], height: float = PANEL[1], **options: Any
) -> tuple[Figure, Shaped[np.ndarray, "{rows} {columns}"]]:
    """A figure of equal panels, with its axes."""
    return drawing.panels(rows, columns, width, height, **options)


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers, not too many; at least one on either side of a lone place."""
    low, high = axis.get_data_interval()
    if 0 <= high - low < 1:
        axis.axes.set_xlim(low - 1, high + 1)
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def span(curves: Sequence[pd.DataFrame | pd.Series]) -> tuple[float, float]:
    """Limits of an axis that shows curves whole."""
    values = np.concatenate([np.ravel(curve) for curve in curves])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def spread(panel: Axes, places: Numbers, seeds: Numbers, interval: Ends | None, look: Look) -> list[Artist]:
    """Draw how far the seeds of a curve lie apart: from 5 on the band of their interval, of fewer each one as a thin
    line, since their interval would hide the curves. What a legend calls it is returned.

    Args:
        panel, look: where and how.
        places: on the x axis, as many as there are columns of `seeds`.
        seeds: a row a seed.
        interval: low and high of each place, where the seeds determine one.
    """
    lone = len(places) == 1  # neither lines nor bands of one place could be seen
    if len(seeds) < FEWEST:
        for seed in seeds if len(seeds) > 1 else []:
            panel.plot(places, seed, "_" * lone, color=look.colour, linewidth=0.5, alpha=0.45)
        return [Line2D([], [], color=GREY, linewidth=0.5, label="one seed")] if len(seeds) > 1 else []
    if interval is None:
        return []
    if lone:
        panel.vlines(places, *interval, color=look.colour, linewidth=3, alpha=0.3)
    else:
        panel.fill_between(places, *interval, color=look.colour, alpha=0.18, linewidth=0)
    return [Patch(color=GREY, alpha=0.3, linewidth=0, label="95% interval over seeds")]


def unbroken(words: str) -> str:
    """Words that a legend keeps in one line."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def legend_below(figure: Figure, *more: Artist) -> None:
    """One legend for all panels, each label once, hung below the figure: `save` makes room for it. It has as many
    columns as fit its width.

    Args:
        figure: whose panels' labelled lines are gathered.
        more: further lines of the legend.
    """
    lines = [line for panel in figure.axes for line in panel.get_legend_handles_labels()[0]]
    labelled = {str(line.get_label()): line for line in [*lines, *more]}
    width = figure.get_size_inches()[0]
    labels = [textwrap.fill(label, max(20, round(16 * width))) for label in labelled]
    for columns in range(min(4, len(labels)), 0, -1):
        legend = figure.legend(labelled.values(), labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def check_text(option: str, text: str) -> None:
    """Find out whether matplotlib can write a user's text, in which formulas stand between dollar signs.

    Raises:
        UserError: it cannot.
    """
    try:
        if is_math_text(text):
            MathTextParser("path").parse(text)
    except ValueError as error:
        reason = str(error).splitlines()[-1].partition(": ")[2]
        raise UserError(
            f"{option} {text!r}: {reason:.80}; expected formulas that matplotlib knows between dollar signs, and "
            r"\$ for a dollar"
        ) from None


def titled(figure: Figure, panels: Sequence[Axes], title: str | None) -> None:
    """Write a user's title: of the only panel, or over all of them."""
    if title is not None:
        if len(panels) == 1:
            panels[0].set_title(title)
        else:
            figure.suptitle(title, fontsize=8)


def extent(figure: Figure, size: tuple[float, float] | None) -> Any:
    """What `savefig` takes as `bbox_inches`: all that is drawn or, after shrinking the panels to make room for what
    hangs below them, exactly `size`.
    """
    if size is None:
        return "tight"
    figure.draw_without_rendering()
    below = max(0.0, -figure.get_tightbbox().y0)
    figure.set_size_inches(size[0], max(0.3 * size[1], size[1] - below))
    return Bbox([[0.0, figure.get_size_inches()[1] - size[1]], [size[0], figure.get_size_inches()[1]]])


@printed
def save(figure: Figure, path: Path, size: tuple[float, float] | None = None) -> list[Path]:
    """Write a figure as PNG and PDF, whose paths are returned.

    Args:
        figure: cut to what is drawn, which may lie outside of it.
        path: the files' common path without suffix.
        size: width and height of the files in inches, whatever is drawn.

    Raises:
        UserError: they cannot be written, or a file that plot.py did not write is there.
    """
    check_place(path)
    box = extent(figure, size)
    contents = {with_suffix(path, suffix): io.BytesIO() for suffix in (".png", ".pdf")}
    for file, content in contents.items():
        # Neither the hour nor the version of the library, so that the same numbers make the same file.
        metadata = {"CreationDate": None, "Producer": None} if file.suffix == ".pdf" else {"Software": None}
        figure.savefig(content, format=file.suffix[1:], metadata=metadata, bbox_inches=box)
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
    return path.with_suffix("") if path.suffix in (*SUFFIXES, *TEXTS) else path


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


def centre(statistic: str, counts: Iterable[int]) -> str:
    """A statistic over seeds in words: of fewer than 5, it is the mean whatever was asked for.

    Args:
        statistic: a key of `STATISTICS`.
        counts: of seeds, group by group; one alone is no matter.
    """
    few = [count < FEWEST for count in counts if count > 1]
    if statistic == "mean" or (few and all(few)):
        return STATISTICS["mean"]
    return STATISTICS[statistic] + f" (mean of fewer than {FEWEST})" * any(few)


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
