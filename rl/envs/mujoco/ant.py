"""AntDir-v1, AntVel-v1 and AntPos-v0: a four-legged runner, as published with MAML (arXiv 1703.03400)."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rl.envs.mujoco.locomotion import Direction, LocomotionEnv, Velocity

CONTROL_COST = 0.005
CONTACT_COST = 0.0005
SURVIVAL_REWARD = 0.05
MIN_HEIGHT, MAX_HEIGHT = 0.2, 1.0  # m; an episode ends when the torso leaves this range


class Ant(LocomotionEnv):
    """r = task − 0.005 ‖a‖² − 0.0005 ‖f‖² + 0.05, with f = clip(cfrc_ext, −1, 1).

    Observations [125]: qpos [15], qvel [14], f [84], the torso's rotation matrix [9] and position [3]. cfrc_ext, six
    numbers a body (N m, N), belongs to the state that is observed, under the control that led to it.
    """

    model_file = "ant.xml"

    def __init__(self, num_envs: int):
        super().__init__(num_envs, observation_size=125)
        self._forces = np.zeros((num_envs, 6 * self.model.nbody))
        self._rotations = np.zeros((num_envs, 9))

    def refresh(self, which: Int[np.ndarray, "R"], controls: Float[np.ndarray, "R A"]) -> None:
        """Contact forces and rotation matrices: `rollout` returns states alone, so each costs a forward pass."""
        model, data = self.model, self._data
        forces, rotation = data.cfrc_ext.reshape(-1), data.body("torso").xmat  # views
        full_physics = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
        for i, control in zip(which, controls, strict=True):
            mujoco.mj_setState(model, data, self._states[i], full_physics)
            data.ctrl = control
            data.qacc_warmstart = 0.0
            mujoco.mj_forward(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            self._forces[i] = forces
            self._rotations[i] = rotation
        self._forces[which] = np.clip(self._forces[which], -1.0, 1.0)

    def observe(self) -> Float32[np.ndarray, "N 125"]:
        """As `TaskVectorEnv.observe`."""
        parts = (self.qpos, self.qvel, self._forces, self._rotations, self.qpos[:, :3])
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def robot_reward(self, actions: Float[np.ndarray, "R A"], which: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.robot_reward`."""
        control_cost = CONTROL_COST * np.square(actions).sum(axis=1)
        contact_cost = CONTACT_COST * np.square(self._forces[which]).sum(axis=1)
        return SURVIVAL_REWARD - control_cost - contact_cost

    def fallen(self) -> Bool[np.ndarray, "N"]:
        """Whether the torso is lower than 0.2 m or higher than 1.0 m."""
        height = self.qpos[:, 2]
        return (height < MIN_HEIGHT) | (height > MAX_HEIGHT)


class AntDir(Direction, Ant):
    """A task is {"direction": 1 or −1}."""

    env_id = "AntDir-v1"


class AntVel(Velocity, Ant):
    """A task is {"velocity": v*}, v* ~ U[0, 3] m/s; it pays 1 − |v − v*|."""

    env_id = "AntVel-v1"
    max_speed = 3.0

    def task_reward(
        self, goals: Float[np.ndarray, "R"], velocities: Float[np.ndarray, "R"], positions: Float[np.ndarray, "R 2"]
    ) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.task_reward`."""
        return 1.0 + super().task_reward(goals, velocities, positions)


class AntPos(Ant):
    """A task is {"goal": [x*, y*]}, both ~ U[−3, 3] m; it pays 4 − |x − x*| − |y − y*|."""

    env_id = "AntPos-v0"
    task_key = "goal"
    goal_shape = (2,)

    def draw_goals(self, num_tasks: int, rng: np.random.Generator) -> Float[np.ndarray, "K 2"]:
        """As `LocomotionEnv.draw_goals`."""
        return rng.uniform(-3.0, 3.0, (num_tasks, 2))

    def task_reward(
        self, goals: Float[np.ndarray, "R 2"], velocities: Float[np.ndarray, "R"], positions: Float[np.ndarray, "R 2"]
    ) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.task_reward`."""
        return 4.0 - np.abs(positions - goals).sum(axis=1)
