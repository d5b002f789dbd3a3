"""What a camera sees of a MuJoCo robot."""

import mujoco
import numpy as np

from rl.video import opengl
from rl.video.film import HEIGHT, WIDTH, signed

GOAL_COLOUR = np.array([0.84, 0.37, 0.0, 1.0], np.float32)
GOAL_RADIUS = 0.25  # m
SHADOW, REFLECTION = mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION


class _Camera:
    """A renderer of one model.

    Args:
        camera: the name of one of the model's, or a `mujoco.MjvCamera`.
    """

    def __init__(self, camera):
        opengl.choose()
        self.camera = camera
        self.renderer = None

    def look(self, model, data, decorate=lambda scene: None):
        """uint8 [HEIGHT, WIDTH, 3]"""
        if self.renderer is None:
            self.renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
        self.renderer.update_scene(data, camera=self.camera)
        scene = self.renderer.scene
        # In software, they would take four fifths of the time.
        scene.flags[SHADOW] = scene.flags[REFLECTION] = 0
        decorate(scene)
        return self.renderer.render()

    def close(self):
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()


class Robot:
    """Half-Cheetah or Ant, from a camera that follows it; a goal in the plane is a ball."""

    def __init__(self, env):
        self.env = env
        self.camera = _Camera("track")
        self.data = mujoco.MjData(env.model)
        self.close = self.camera.close

    def prepare(self, panels):
        """Nothing: the camera follows the robot."""

    def begin(self, task):
        """Take over the task of a new episode."""
        self.before = self.now = self.env.qpos[0, 0]

    def follow(self):
        """Take note of the state after a step."""
        self.before, self.now = self.now, self.env.qpos[0, 0]

    def view(self):
        """(picture, what the task asks about: the forward velocity over the last step, or the place)"""
        env = self.env
        self.data.qpos[:], self.data.qvel[:] = env.render_state(0)
        mujoco.mj_forward(env.model, self.data)
        if env.task_key == "velocity":
            remark = f"{signed((self.now - self.before) / env.step_duration)} m/s"
        else:
            place = ", ".join(signed(value) for value in env.qpos[0, : 2 if env.goal_shape else 1])
            remark = f"({place}) m" if env.goal_shape else f"x {place} m"
        return self.camera.look(env.model, self.data, self._mark_goal), remark

    def _mark_goal(self, scene):
        if not self.env.goal_shape:
            return
        goal = self.env.goals[0]
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, GOAL_RADIUS),
            np.array([*goal, GOAL_RADIUS]), np.eye(3).ravel(), GOAL_COLOUR,
        )  # fmt: skip
        scene.ngeom += 1


def across_the_table():
    """A camera that faces Meta-World's arm over a corner of its table."""
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = (0.0, 0.65, 0.1), 1.4, -135.0, -30.0
    return camera


class Arm:
    """Meta-World's robot arm."""

    def __init__(self, env):
        self.env = env
        self.cameras = {}

    def prepare(self, panels):
        """Nothing: the camera sees the whole table."""

    def begin(self, task):
        """Take over the task of a new episode."""
        self.camera = self.cameras.setdefault(task["env_name"], _Camera(across_the_table()))

    def follow(self):
        """Take note of the state after a step."""

    def view(self):
        """(picture, nothing)"""
        return self.camera.look(*self.env.scene(0)), ""

    def close(self):
        """Free the renderers."""
        for camera in self.cameras.values():
            camera.close()
