"""Bandit-K5-v0, Bandit-K10-v0, Bandit-K50-v0: Bernoulli bandits, as in RL² (arXiv 1611.02779, section 3.1)."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32, Int

from rl.envs.base import Step, Task, TaskVectorEnv

# RL² gives an agent 10, 100 or 500 pulls; the published MAML code registers 100 an episode for every number of arms.
HORIZON = 100  # pulls


class BernoulliBandit(TaskVectorEnv):
    """N bandits; a task is {"mean": [p₁ … p_k]}, p uniform on [0, 1].

    Pulling arm a earns 1 with probability pₐ, else 0. There is nothing to see: the observation is [0]. An episode is
    100 pulls and ends by truncation alone.

    Args:
        num_envs: N.
        num_arms: k.
    """

    num_observations = 1
    pictures = "rl.envs.bandit_pictures"

    def __init__(self, num_envs: int, num_arms: int):
        super().__init__(
            num_envs,
            single_observation_space=Box(0.0, 1.0, (1,), np.float32),
            single_action_space=Discrete(num_arms),
            horizon=HORIZON,
        )
        self.num_arms = num_arms
        self.rows = np.arange(num_envs)
        self.means = np.zeros((num_envs, num_arms))
        self.luck = np.zeros((num_envs, HORIZON))
        self.pulled = np.zeros(num_envs, np.int64)  # the last arm, for pictures

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Success probabilities uniform on [0, 1], the same for both splits."""
        return [{"mean": mean} for mean in rng.random((num_tasks, self.num_arms)).tolist()]

    def assign(self, tasks: list[Task]) -> None:
        """Take over the probabilities."""
        means = np.array([task["mean"] for task in tasks], np.float64)
        if means.shape != self.means.shape or not ((means >= 0) & (means <= 1)).all():
            raise ValueError(f"bandit: the mean of a task is {self.num_arms} probabilities")
        self.means = means

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Draw one uniform number a pull; the arm decides what it is compared with."""
        for i in which:
            self.luck[i] = self.generators[i].random(HORIZON)

    def advance(self, actions: Int[np.ndarray, "N"]) -> Step:
        """Pull: r = 1 if uₜ < pₐ, u uniform on [0, 1)."""
        self.pulled = actions
        # The last column stands in for episodes that are over.
        pull = np.minimum(self.elapsed, HORIZON - 1)
        lucky = self.luck[self.rows, pull] < self.means[self.rows, actions]
        return lucky.astype(np.float64), np.zeros(self.num_envs, bool), {}

    def observe(self) -> Float32[np.ndarray, "N 1"]:
        """Zeros."""
        return np.zeros((self.num_envs, 1), np.float32)
