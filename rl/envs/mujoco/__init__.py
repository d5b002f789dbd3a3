"""Half-Cheetah and Ant; and MuJoCo, imported without OpenGL, which only pictures need and a machine may not have.

MuJoCo loads OpenGL as it is imported, in the way that MUJOCO_GL names, and is not imported where that fails.
"""

import importlib
import os
import sys
from typing import Any

if "mujoco" not in sys.modules:
    _wanted = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        import mujoco
        import mujoco.gl_context
    finally:
        os.environ.pop("MUJOCO_GL")
        if _wanted is not None:
            os.environ["MUJOCO_GL"] = _wanted

    def _opengl(name: str) -> Any:
        """`GLContext`, for whoever asks for it: as MuJoCo would have loaded it."""
        loaded = vars(importlib.reload(mujoco.gl_context)) if name == "GLContext" else {}
        if name not in loaded:
            raise AttributeError(f"module 'mujoco' has no attribute {name!r}")
        return loaded[name]

    vars(mujoco)["__getattr__"] = vars(mujoco.gl_context)["__getattr__"] = _opengl
