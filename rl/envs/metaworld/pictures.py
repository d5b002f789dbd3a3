"""Films of Meta-World's robot arm."""

from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from rl import drawing
from rl.envs.metaworld.benchmark import MetaWorldML
from rl.envs.mujoco.camera import Camera


class Scene(drawing.Scene):
    """The arm, from a camera over a corner of its table; each class has a model of its own."""

    needs_opengl = True

    def __init__(self, env: MetaWorldML):
        super().__init__(env)
        self.cameras: dict[str, Camera] = {}

    def begin(self, task: dict[str, Any]) -> None:
        """Take the camera of the task's class."""
        self.camera = self.cameras.setdefault(task["env_name"], Camera(across_the_table()))

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The table, without a remark."""
        return self.camera.look(*self.env.scene(0)), ""

    def close(self) -> None:
        """Free the renderers."""
        for camera in self.cameras.values():
            camera.close()


def across_the_table() -> mujoco.MjvCamera:
    """A camera that faces the arm."""
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = (0.0, 0.65, 0.1), 1.4, -135.0, -30.0
    return camera
