"""2D navigation, drawn: paths of episodes, and films."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from rl import drawing
from rl.drawing import BLACK, BLUE, GREY, HEIGHT, VERMILION, Picture, Recorded, Sheet, rgb
from rl.envs.labels import signed
from rl.envs.navigation.environment import GOAL_RANGE, MAX_MOVE

RECENT = 8  # last places of a path, drawn darker in a film


def positions(
    observations: Float[np.ndarray, "T 2"], actions: Float[np.ndarray, "T 2"], mask: Shaped[np.ndarray, "T"]
) -> Float[np.ndarray, "places 2"]:
    """The places of one episode, the last one included."""
    taken = int(mask.sum())
    last = observations[taken - 1] + np.clip(actions[taken - 1], -MAX_MOVE, MAX_MOVE)
    return np.concatenate([observations[:taken], last[None]])


def trajectories(recorded: Recorded) -> Picture:
    """A row a task, titled with its goal; a column a number of updates; in each panel the first episode."""
    episodes, count = recorded.episodes, recorded.stages
    paths = [
        [positions(*(episodes[name][task, :, 0, updates] for name in ("observations", "actions", "mask")))
         for updates in range(count)]
        for task in recorded.chosen
    ]  # fmt: skip
    reach = 1.05 * max([GOAL_RANGE] + [float(np.abs(path).max()) for row in paths for path in row])
    figure, axes = drawing.task_panels(len(paths), count, width=1.4, height=1.4, sharex=True, sharey=True)
    axes[0, 0].set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes[0, 0].set(xticks=(-GOAL_RANGE, GOAL_RANGE), yticks=(-GOAL_RANGE, GOAL_RANGE))
    for task, row, panels in zip(recorded.chosen, paths, axes, strict=True):
        for path, panel in zip(row, panels, strict=True):
            panel.plot(*path.T, color=BLUE, linewidth=0.6, label="path of an episode")
            panel.plot(*path[-1], "o", color=BLUE, markersize=4.5, markeredgecolor="white", markeredgewidth=0.7,
                       linestyle="", label="its end")  # fmt: skip
            panel.plot(0, 0, "+", color=BLACK, markersize=6, linestyle="", label="start")
            # The goal lies below: where the episode ends in it, path and end are to be seen.
            panel.plot(*recorded.tasks[task]["goal"], "*", color=VERMILION, markersize=10, markeredgecolor="none",
                       linestyle="", label="goal", zorder=1)  # fmt: skip
            panel.set_aspect("equal")
        panels[0].set_title(recorded.labels[task], loc="left")
    for panels in axes:
        if panels[0].get_subplotspec().is_first_row():
            drawing.label_columns(panels, range(count), 18)
    drawing.label_edges(axes.flat, "", "")
    figure.supxlabel("x (plane units)", fontsize=8)
    figure.supylabel("y (plane units)", fontsize=8)
    return Picture(figure, f"{recorded.shown}, the first episode of each")


class Scene(drawing.Scene):
    """The square of goals, the goal as a star, the path so far; one scale for all panels and steps."""

    reach = 0.65  # half of the height shown, plane units, unless a path leads farther

    def prepare(self, panels: Iterable[Any]) -> None:
        """Choose a scale that shows all paths."""
        paths = [positions(*(values[0, :, 0] for values in (panel.observations, panel.actions, panel.mask)))
                for panel in panels]  # fmt: skip
        self.reach = max(self.reach, 1.1 * float(np.abs(np.concatenate(paths)).max()))

    def begin(self, task: dict[str, Any]) -> None:
        """Start a path."""
        self.goal = task["goal"]
        self.path = [self.env.positions[0].copy()]

    def follow(self) -> None:
        """Extend the path."""
        self.path.append(self.env.positions[0].copy())

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The plane; the distance from the goal."""
        sheet = Sheet((0, 0), (HEIGHT / 2 / self.reach,) * 2)
        corners = [(x * GOAL_RANGE, y * GOAL_RANGE) for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))]
        sheet.line(corners, rgb(GREY, 0.7), 1)
        sheet.cross((0, 0), rgb(GREY), 4, 1)
        if len(self.path) > 1:
            sheet.line(self.path, rgb(BLUE, 0.6), 1.5)
            sheet.line(self.path[-RECENT:], rgb(BLUE), 1.5)
        sheet.star(self.goal, rgb(VERMILION), 9)
        sheet.dot(self.path[-1], rgb(BLUE), 5)
        return sheet.finished(), f"distance {signed(math.dist(self.path[-1], self.goal))}"
