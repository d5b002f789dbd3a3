"""Whether robots can be seen on this machine."""

from rl.envs.mujoco import opengl
from rl.errors import UserError


def can_render():
    try:
        opengl.choose()
    except UserError:
        return False
    return True
