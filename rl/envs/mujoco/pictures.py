"""Half-Cheetah and Ant, drawn: where they run, and films."""

from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from rl import drawing
from rl.drawing import Picture, Recorded
from rl.envs.labels import signed
from rl.envs.mujoco.camera import Camera
from rl.envs.mujoco.locomotion import LocomotionEnv

STEP = 0.05  # s between two observations of either robot
X, Y = -3, -2  # places of the torso's position in an observation of either robot
GOAL_COLOUR = np.array([0.84, 0.37, 0.0, 1.0], np.float32)
GOAL_RADIUS = 0.25  # m


def trajectories(recorded: Recorded) -> Picture:
    """The torso's position, or its distance from a goal in the plane, against time: a panel a task, a thin line an
    episode, a thick one their mean.
    """
    episodes, chosen = recorded.episodes, recorded.chosen
    figure, axes = drawing.grid(len(chosen), sharex=True, sharey=True)
    goals = "goal" in recorded.tasks[chosen[0]]
    for panel, task in zip(axes, chosen, strict=True):
        for updates, colour in enumerate(drawing.shades(recorded.stages)):
            mask, seen = (episodes[name][task, :, :, updates] for name in ("mask", "observations"))
            if goals:
                x, y = recorded.tasks[task]["goal"]
                shown = np.hypot(seen[..., X] - x, seen[..., Y] - y)
            else:
                shown = seen[..., X]
            shown = np.where(mask > 0, shown, np.nan)
            # An episode can end early; the mean stops where the first one does.
            seconds, common = STEP * np.arange(len(shown)), (mask > 0).all(axis=1)
            panel.plot(seconds, shown, color=colour, linewidth=0.4, alpha=0.5)
            panel.plot(seconds[common], shown[common].mean(axis=1), color=colour, label=drawing.update_label(updates))
        panel.set_title(recorded.labels[task])
    drawing.label_edges(axes, "time (s)", "distance from the goal (m)" if goals else "position (m)")
    return Picture(figure, f"{recorded.shown}, {episodes['mask'].shape[2]} episodes of each")


class Scene(drawing.Scene):
    """The robot, from a camera that follows it; a goal in the plane is a ball."""

    needs_opengl = True

    def __init__(self, env: LocomotionEnv):
        super().__init__(env)
        self.camera = Camera("track")
        self.data = mujoco.MjData(env.model)

    def begin(self, task: dict[str, Any]) -> None:
        """Note where the robot stands."""
        self.before = self.now = self.env.qpos[0, 0]

    def follow(self) -> None:
        """Note where the robot was and is."""
        self.before, self.now = self.now, self.env.qpos[0, 0]

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The robot; what the task asks about: the forward velocity over the last step, or the place."""
        env = self.env
        self.data.qpos[:], self.data.qvel[:] = env.qpos[0], env.qvel[0]
        mujoco.mj_forward(env.model, self.data)
        if env.task_key == "velocity":
            remark = f"{signed((self.now - self.before) / env.step_duration)} m/s"
        elif env.goal_shape:
            remark = f"({', '.join(signed(value) for value in env.qpos[0, :2])}) m"
        else:
            remark = f"x {signed(self.now)} m"
        return self.camera.look(env.model, self.data, self._mark_goal), remark

    def close(self) -> None:
        """Free the renderer."""
        self.camera.close()

    def _mark_goal(self, scene: Any) -> None:
        if not self.env.goal_shape:
            return
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, GOAL_RADIUS),
            np.array([*self.env.goals[0], GOAL_RADIUS]), np.eye(3).ravel(), GOAL_COLOUR,
        )  # fmt: skip
        scene.ngeom += 1
