"""OpenGL without a display, for MuJoCo's renderer: EGL (with a GPU, or in software) or OSMesa (in software)."""

import functools
import importlib
import os
import subprocess
import sys

from rl.errors import UserError

WAYS = ("egl", "osmesa") if sys.platform == "linux" else ("",)
PACKAGES = "libegl1, libgl1 and libgl1-mesa-dri, or libosmesa6"
_TRY = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).render()"


@functools.cache
def choose() -> None:
    """Let MuJoCo render in the first way that works here; a way named by the variable MUJOCO_GL is the only one tried.

    Raises:
        UserError: none works.
    """
    ways = [os.environ["MUJOCO_GL"]] if os.environ.get("MUJOCO_GL") else WAYS
    for way in ways:
        if works(way):
            use(way)
            return
    tried = " nor ".join(way or "a display" for way in ways)
    raise UserError(f"MuJoCo cannot render here with {tried}; expected Debian's packages {PACKAGES}")


def works(way: str) -> bool:
    """Whether MuJoCo can render in this way.

    Found out in a process of its own: the first way that PyOpenGL loads, working or not, binds a process.
    """
    environment = os.environ | {"MUJOCO_GL": way}
    return subprocess.run([sys.executable, "-c", _TRY], env=environment, capture_output=True).returncode == 0


def use(way: str) -> None:
    """Have MuJoCo's renderer take this way."""
    if way in ("egl", "osmesa"):
        import mujoco.gl_context

        # MuJoCo reads MUJOCO_GL when it is imported, which has long happened.
        mujoco.gl_context.GLContext = importlib.import_module(f"mujoco.{way}").GLContext
