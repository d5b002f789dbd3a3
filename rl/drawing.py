"""What pictures and films of every environment share: colours, panels, and what passes between an environment's own
pictures and the programs that ask for them.

Axes: K tasks, T steps, E episodes of a task, U + 1 numbers of inner updates (0 … U).
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is for references.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILION, GREEN = COLOURS[:3]
GREY, BLACK = "#8C8C8C", "#000000"
PAGE = (7.0, 9.0)  # inches that a page leaves for a picture
GAP = 0.6  # between tasks that are side by side, as a share of a panel
WIDTH, HEIGHT = 320, 240  # pixels of a film's view
_FINER = 3  # a sheet is drawn this many times larger, then shrunk, for smooth lines

Number = int | float
RGB = tuple[int, int, int]
Place = Sequence | Float[np.ndarray, "2"]  # x and y


class Recorded(NamedTuple):
    """What an evaluation recorded, for a picture of trajectories.

    Attributes:
        tasks: all K of them.
        labels: a few words for each task.
        chosen: indices of the tasks to show.
        episodes: "observations", "actions", "mask" (1 at the steps taken) and each "info.<name>".
        config_path: the evaluation's copy of the environment's configuration file, if it has one.
    """

    tasks: list[dict[str, Any]]
    labels: list[str]
    chosen: list[int]
    episodes: dict[str, Shaped[np.ndarray, "K T E U ..."]]
    config_path: Path | None = None

    @property
    def stages(self) -> int:
        """U + 1."""
        return self.episodes["mask"].shape[3]

    @property
    def shown(self) -> str:
        """How many of the tasks are shown, in words."""
        return f"{len(self.chosen)} of {len(self.tasks)} tasks"


class Picture(NamedTuple):
    """A picture of trajectories.

    Attributes:
        figure: its labelled lines get one legend below.
        caption: what is shown, in words: the program adds the numbers of updates.
        table: the numbers drawn, (names of columns, rows), to be written as CSV.
        updates: the numbers of updates shown, where that is not all of them.
    """

    figure: Figure
    caption: str
    table: tuple[Sequence[str], list[tuple]] | None = None
    updates: Sequence[int] = ()


class Scene:
    """What a film shows of an environment: subclass it, override what you need.

    Args:
        env: a `TaskVectorEnv` of one episode, which replays what was recorded.
    """

    needs_opengl = False  # whether views come from MuJoCo's renderer
    env_options: Mapping[str, Any] = {}  # what the environment's constructor gets besides, where it is to be seen
    legend = ""  # what the views show, in a line, where they do not say so themselves

    def __init__(self, env: Any):
        self.env = env

    def prepare(self, panels: Iterable[Any]) -> None:
        """Before the first episode: `panels` are the `Episodes` of each panel, for a scale that suits them all."""

    def begin(self, task: dict[str, Any]) -> None:
        """A new episode has been reset."""

    def follow(self) -> None:
        """A step has been taken."""

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """A picture of the present state, `HEIGHT` × `WIDTH`, and a remark on it."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what the scene holds."""


def panels(
    rows: int, columns: int, width: Number, height: Number, **options: Any
) -> tuple[Figure, Shaped[np.ndarray, "rows columns"]]:
    """A figure of equal panels, in inches each, and its axes."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def grid(count: int, columns: int = 3, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` square panels in rows; what is left of the last row stays empty."""
    columns = min(columns, count)
    figure, axes = panels(math.ceil(count / columns), columns, width=2.3, height=2.3, **options)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    return figure, list(axes.flat[:count])


def task_panels(
    count: int, stages: int, width: Number, height: Number, **options: Any
) -> tuple[Figure, Shaped[np.ndarray, "count stages"]]:
    """A row of panels for each of `count` tasks, a panel a number of updates, on one page: as many tasks side by side
    as leave the panels largest, none larger than `width` × `height` inches.
    """

    def scale(blocks: int) -> float:
        columns = blocks * stages + GAP * (blocks - 1)
        return min(1.0, PAGE[0] / (columns * width), PAGE[1] / (math.ceil(count / blocks) * height))

    blocks = max(range(1, count + 1), key=lambda number: (round(scale(number), 6), -number))
    rows, size = math.ceil(count / blocks), scale(blocks)
    ratios = ([1.0] * stages + [GAP]) * blocks
    figure = Figure(figsize=(sum(ratios[:-1]) * width * size, rows * height * size), layout="constrained")
    axes = figure.subplots(rows, len(ratios) - 1, squeeze=False, width_ratios=ratios[:-1], **options)
    places = [axes[task % rows, (task // rows) * (stages + 1) :][:stages] for task in range(count)]
    for panel in set(axes.flat) - {panel for row in places for panel in row}:
        panel.set_visible(False)
    return figure, np.array(places)


def label_edges(axes: Iterable[Axes], x: str, y: str) -> None:
    """Label the outer axes of a grid only: the lowest of each column, the first of each row."""
    places = {panel: panel.get_subplotspec() for panel in axes}
    cells = {panel: (spec.rowspan.start, spec.colspan.start) for panel, spec in places.items() if spec is not None}
    for panel, (row, column) in cells.items():
        lowest = row == max(other for other, same in cells.values() if same == column)
        first = column == min(other for same, other in cells.values() if same == row)
        panel.set(xlabel=x if lowest else "", ylabel=y if first else "")
        panel.tick_params(labelbottom=lowest, labelleft=first)


def update_label(updates: int) -> str:
    """A number of updates, for legends and titles."""
    return {0: "before adaptation", 1: "after 1 update"}.get(updates, f"after {updates} updates")


def label_columns(axes: Iterable[Axes], updates: Iterable[int], above: Number) -> None:
    """Write the numbers of updates `above` points over the panels of a row, in small letters over narrow ones."""
    row = list(axes)
    spec = row[0].get_subplotspec()
    columns = len(row) if spec is None else spec.get_gridspec().ncols
    width = row[0].figure.bbox.width / row[0].figure.dpi / columns  # inches, at most
    for panel, number in zip(row, updates, strict=True):
        text, size = update_label(number), 8
        if width < 1.2:
            text, size = textwrap.fill(text, 10), 6
        panel.annotate(text, (0.5, 1), (0, above), xycoords="axes fraction", textcoords="offset points", ha="center",
                       fontsize=size)  # fmt: skip


def shades(count: int) -> list[Any]:
    """A colour for each of 0, 1, 2, … updates: grey before adaptation, then from dark to light."""
    ramp = colormaps["viridis"](np.linspace(0.0, 0.85, max(count - 1, 1)))
    return [GREY, *ramp[: count - 1]]


def rgb(name: str, lightness: Number = 0) -> RGB:
    """A colour of matplotlib's as bytes; lightness 1 makes it white."""
    red, green, blue = (round(255 * (part + (1 - part) * lightness)) for part in to_rgb(name))
    return red, green, blue


class Sheet:
    """A view to draw on with Pillow, in the environment's own coordinates; widths and radii are pixels of the view.

    Args:
        centre: the place in the middle.
        scale: pixels of a unit, in x and in y.
    """

    paper = (255, 255, 255)

    def __init__(self, centre: Place, scale: Place):
        self.centre, self.scale = np.array(centre), np.array(scale)
        self.image = Image.new("RGB", (_FINER * WIDTH, _FINER * HEIGHT), self.paper)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, place: Place) -> tuple[float, float]:
        """A place in pixels of the large image; y points up."""
        x, y = (np.asarray(place, float) - self.centre) * self.scale
        return _FINER * (WIDTH / 2 + x), _FINER * (HEIGHT / 2 - y)

    def line(self, path: Iterable, colour: RGB, width: Number) -> None:
        """A line through places."""
        self.draw.line([self.at(place) for place in path], colour, round(_FINER * width), joint="curve")

    def dot(self, place: Place, colour: RGB, radius: int) -> None:
        """A dot with a white rim."""
        self.draw.circle(self.at(place), _FINER * radius, colour, self.paper, _FINER)

    def cross(self, place: Place, colour: RGB, radius: int, width: int) -> None:
        """A diagonal cross."""
        x, y = self.at(place)
        radius *= _FINER
        for slope in (-1, 1):
            self.draw.line((x - radius, y - slope * radius, x + radius, y + slope * radius), colour, _FINER * width)

    def star(self, place: Place, colour: RGB, radius: int) -> None:
        """A star of five points."""
        x, y = self.at(place)
        points = []
        for corner in range(10):
            length, angle = _FINER * radius * (0.4 if corner % 2 else 1.0), math.pi * (corner / 5 - 0.5)
            points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
        self.draw.polygon(points, colour)

    def finished(self) -> UInt8[np.ndarray, "H W 3"]:
        """The view."""
        return np.asarray(self.image.reduce(_FINER))
