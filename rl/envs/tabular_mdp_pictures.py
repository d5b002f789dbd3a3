"""Tabular MDPs, drawn for films: the states on a circle, and the way through them."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from rl import drawing
from rl.drawing import BLUE, GREY, HEIGHT, Sheet, rgb
from rl.envs.tabular_mdp import NUM_STATES


class Scene(drawing.Scene):
    """A dot for each state, the first one on top; the way so far, its last step darker."""

    legend = "blue: the way through the states so far, its last step darker, and the present state"

    def begin(self, task: dict[str, Any]) -> None:
        """The episode begins in its first state."""
        self.path = [int(self.env.states[0])]

    def follow(self) -> None:
        """Extend the way."""
        self.path.append(int(self.env.states[0]))

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The states; the number of the present one."""
        sheet = Sheet((0, 0), (0.4 * HEIGHT,) * 2)
        angles = 2 * np.pi * np.arange(NUM_STATES) / NUM_STATES
        places = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        for shown, lightness in ((self.path, 0.6), (self.path[-2:], 0.0)):
            if len(shown) > 1:
                sheet.line(places[shown], rgb(BLUE, lightness), 2)
        for place in places:
            sheet.dot(place, rgb(GREY, 0.5), 6)
        sheet.dot(places[self.path[-1]], rgb(BLUE), 9)
        return sheet.finished(), f"state {self.path[-1]}"
