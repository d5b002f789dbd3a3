"""Panels side by side with words on them, written as mp4 and gif."""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from jaxtyping import Int
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from rl.drawing import HEIGHT, WIDTH, update_label
from rl.envs.labels import signed
from rl.video.replay import Panel

HEADER, CAPTION = 32, 48  # pixels above all panels, below each; with the height they make a multiple of 16 for codecs
COLUMNS = 5  # panels in a row
SECONDS = 10  # how long an episode of full length lasts; for Half-Cheetah and Ant that is real time
SLOWEST = 2  # frames a second
LINGER = 1500  # milliseconds that a gif stays at its last frame
GIF_COLOURS = 128
INK, FAINT, PAPER = (0, 0, 0), (110, 110, 110), (255, 255, 255)


def write(path: Path, title: str, panels: Sequence[Panel], moments: Int[np.ndarray, "frames"]) -> list[Path]:
    """Write a film of one task: <path>.mp4 and <path>.gif.

    Args:
        path: of the files, without suffix.
        title: a line above the panels.
        panels: one for each number of updates.
        moments: after how many steps the views of an episode of full length were made.
    """
    rate = max(SLOWEST, round(len(moments) / SECONDS))
    film, animation = path.with_suffix(".mp4"), path.with_suffix(".gif")
    images = list(frames(title, panels, moments))
    writer: Any
    with imageio.get_writer(film, fps=rate, codec="libx264", quality=7) as writer:
        for image in images:
            writer.append_data(np.asarray(image))
    # A palette for the whole film: with one a frame, still areas would flicker. Small things of a rare colour keep it.
    palette = images[len(images) // 2].quantize(GIF_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [1000 // rate] * len(others) + [LINGER]
    first.save(animation, save_all=True, append_images=others, duration=durations, loop=0)
    return [film, animation]


def frames(title: str, panels: Sequence[Panel], moments: Int[np.ndarray, "frames"]) -> Iterator[Image.Image]:
    """The pictures of a film; a panel whose episode has ended stays as it is."""
    count = max(len(panel.views) for panel in panels)
    columns = min(COLUMNS, len(panels))
    size = (columns * WIDTH, HEADER + math.ceil(len(panels) / columns) * (HEIGHT + CAPTION))
    for index in range(count):
        image = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(image)
        step = min(int(moments[index]), max(panel.steps for panel in panels))
        draw.text((8, 7), cut(title, size[0] - 100), INK, font(15, bold=True))
        draw.text((size[0] - 8, 8), f"step {step}", INK, font(14), anchor="ra")
        for updates, panel in enumerate(panels):
            corner = updates % columns * WIDTH, HEADER + updates // columns * (HEIGHT + CAPTION)
            paste(image, draw, corner, updates, panel, index)
        yield image


def paste(
    image: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], updates: int, panel: Panel, index: int
) -> None:
    """Draw one panel and its caption."""
    view = panel.views[min(index, len(panel.views) - 1)]
    left, top = corner
    image.paste(Image.fromarray(view.picture), corner)
    draw.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 1), outline=PAPER)
    ended = index >= len(panel.views)
    remark = f"ended at step {panel.steps}" if ended else view.remark
    draw.text((left + 8, top + HEIGHT + 5), update_label(updates), INK, font(14, bold=True))
    draw.text((left + WIDTH - 8, top + HEIGHT + 5), remark, FAINT, font(14), anchor="ra")
    earned = f"return {signed(view.earned)} of {signed(panel.total)}"
    draw.text((left + 8, top + HEIGHT + 25), earned, INK, font(14))


def cut(title: str, width: int | float) -> str:
    """As much of a title as fits into so many pixels."""
    if font(15, bold=True).getlength(title) <= width:
        return title
    while font(15, bold=True).getlength(f"{title}…") > width:
        title = title[:-1]
    return f"{title}…"


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along."""
    properties = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size)
