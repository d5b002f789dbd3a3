"""What a camera sees of a MuJoCo robot."""

import mujoco
import numpy as np

from rl.videos import opengl
from rl.videos.film import HEIGHT, WIDTH, signed

GOAL_COLOUR = np.array([0.84, 0.37, 0.0, 1.0], np.float32)
GOAL_RADIUS = 0.25  # m
SHADOW, REFLECTION = mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION


class _Camera:
    """A renderer of one model."""

    def __init__(self, name):
        opengl.choose()
        self.name = name
        self.renderer = None

    def look(self, model, data, decorate=lambda scene: None):
        """uint8 [HEIGHT, WIDTH, 3]"""
        if self.renderer is None:
            self.renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
        self.renderer.update_scene(data, camera=self.name)
        scene = self.renderer.scene
        # In software, they would take three quarters of the time.
        scene.flags[SHADOW] = scene.flags[REFLECTION] = 0
        decorate(scene)
        return self.renderer.render()

    def close(self):
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()


class Robot:
    """Half-Cheetah or Ant, from a camera that goes along; a goal in the plane is a ball."""

    def __init__(self, env):
        self.env = env
        self.camera = _Camera("track")
        self.data = mujoco.MjData(env.model)
        self.close = self.camera.close

    def begin(self, task):
        """A new episode."""
        self.before = self.now = self.env.qpos[0, 0]

    def follow(self):
        """After a step."""
        self.before, self.now = self.now, self.env.qpos[0, 0]

    def view(self):
        """(picture, what the task asks about: the forward velocity over the last step, or the place)"""
        env = self.env
        self.data.qpos[:], self.data.qvel[:] = env.render_state(0)
        mujoco.mj_forward(env.model, self.data)
        if env.task_key == "velocity":
            remark = f"{signed((self.now - self.before) / env.step_duration)} m/s"
        else:
            remark = f"x {signed(self.now)} m" + (f", y {signed(env.qpos[0, 1])} m" if env.goal_shape else "")
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


class Arm:
    """Meta-World's robot arm, from the corner camera."""

    def __init__(self, env):
        self.env = env
        self.cameras = {}

    def begin(self, task):
        """A new episode."""
        self.camera = self.cameras.setdefault(task["env_name"], _Camera("corner2"))

    def follow(self):
        """After a step."""

    def view(self):
        """(picture, nothing)"""
        return self.camera.look(*self.env.scene(0)), ""

    def close(self):
        """Free the renderers."""
        for camera in self.cameras.values():
            camera.close()
