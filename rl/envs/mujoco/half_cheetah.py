"""HalfCheetahDir-v1 and HalfCheetahVel-v1: a planar runner, as published with MAML (arXiv 1703.03400)."""

import numpy as np
from jaxtyping import Float, Float32, Int

from rl.envs.mujoco.locomotion import Direction, LocomotionEnv, Velocity

CONTROL_COST = 0.05


class HalfCheetah(LocomotionEnv):
    """r = task − 0.05 ‖a‖². Observations [20]: qpos without x [8], qvel [9], position of the torso [3]."""

    model_file = "half_cheetah.xml"

    def __init__(self, num_envs: int):
        super().__init__(num_envs, observation_size=20)
        self._torso_height = self.model.body("torso").pos[2]  # m, where the joint rootz is 0

    def observe(self) -> Float32[np.ndarray, "N 20"]:
        """As `TaskVectorEnv.observe`."""
        # The torso hangs on the slides rootx and rootz, in the plane y = 0, and turns about its own origin.
        x, z = self.qpos[:, 0:1], self.qpos[:, 1:2] + self._torso_height
        return np.concatenate((self.qpos[:, 1:], self.qvel, x, np.zeros_like(x), z), axis=1, dtype=np.float32)

    def robot_reward(self, actions: Float[np.ndarray, "R A"], which: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.robot_reward`."""
        return -CONTROL_COST * np.square(actions).sum(axis=1)


class HalfCheetahDir(Direction, HalfCheetah):
    """A task is {"direction": 1 or −1}."""

    env_id = "HalfCheetahDir-v1"


class HalfCheetahVel(Velocity, HalfCheetah):
    """A task is {"velocity": v*}, v* ~ U[0, 2] m/s."""

    env_id = "HalfCheetahVel-v1"
    max_speed = 2.0
