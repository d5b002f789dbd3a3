"""Pictures of an environment of the user's own: what its `render` gives in the mode "rgb_array"."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rl import drawing
from rl.drawing import HEIGHT, WIDTH
from rl.errors import UserError


class Scene(drawing.Scene):
    """The environment's own frames, as large as a view allows."""

    env_options = {"render_mode": "rgb_array"}

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The present frame, without a remark.

        Raises:
            UserError: `render` gave something else than an image.
        """
        frame: Any = self.env.render()
        if isinstance(frame, tuple | list) and len(frame) == 1:  # as vector environments have it
            (frame,) = frame
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UserError(f"render: expected a uint8 array [height, width, 3], got {frame.dtype} {frame.shape}")
        image = Image.fromarray(frame)
        scale = min(WIDTH / image.width, HEIGHT / image.height)
        image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
        view = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
        view.paste(image, ((WIDTH - image.width) // 2, (HEIGHT - image.height) // 2))
        return np.asarray(view), ""
