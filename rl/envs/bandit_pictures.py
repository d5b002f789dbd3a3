"""Bandits, drawn for films: what each arm pays, and how often it was pulled."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from rl import drawing
from rl.drawing import BLUE, GREY, HEIGHT, VERMILION, WIDTH, Sheet, rgb


class Scene(drawing.Scene):
    """A bar for each arm, as high as its probability; below it one as long as its share of the pulls so far; the best
    arm has a star.
    """

    legend = "above: how likely each arm pays, a star over the best; below: its share of the pulls so far"

    def begin(self, task: dict[str, Any]) -> None:
        """Nothing has been pulled."""
        self.means = np.array(task["mean"])
        self.pulls = np.zeros(len(self.means))

    def follow(self) -> None:
        """Count the pull."""
        self.pulls[self.env.pulled[0]] += 1

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The arms; how many pulls the best one has had."""
        count, best = len(self.means), int(self.means.argmax())
        sheet = Sheet((count / 2, 0.2), ((WIDTH - 16) / count, (HEIGHT - 40) / 2))
        width = 0.7 * (WIDTH - 16) / count
        for arm, (mean, pulls) in enumerate(zip(self.means, self.pulls, strict=True)):
            x, share = arm + 0.5, pulls / max(self.pulls.sum(), 1)
            sheet.line([(x, 0), (x, mean)], rgb(GREY, 0.5), width)
            sheet.line([(x, 0), (x, -0.8 * share)], rgb(BLUE), width)
        sheet.line([(0, 0), (count, 0)], rgb(GREY), 1)
        sheet.star((best + 0.5, self.means[best] + 0.1), rgb(VERMILION), 8)
        return sheet.finished(), f"best arm {self.pulls[best]:.0f} of {self.pulls.sum():.0f}"
