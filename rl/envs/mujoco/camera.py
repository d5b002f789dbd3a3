"""What a camera sees of a MuJoCo model."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from rl.drawing import HEIGHT, WIDTH

_SLOW = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)


class Camera:
    """A renderer of one model.

    Args:
        camera: the name of one of the model's, or one of your own.
    """

    def __init__(self, camera: str | mujoco.MjvCamera):
        self.camera = camera
        self.renderer: Any = None

    def look(
        self, model: Any, data: Any, decorate: Callable[[Any], None] = lambda scene: None
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The view of a state; `decorate` may add shapes to the `mujoco.MjvScene`."""
        if self.renderer is None:
            self.renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
        self.renderer.update_scene(data, camera=self.camera)
        scene = self.renderer.scene
        for flag in _SLOW:  # in software, they would take four fifths of the time
            scene.flags[flag] = 0
        decorate(scene)
        return self.renderer.render()

    def close(self) -> None:
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()
