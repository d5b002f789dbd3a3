"""TabularMDP-v0: random finite Markov decision processes, as in RL² (arXiv 1611.02779, section 3.2)."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32, Int

from rl.envs.base import Step, Task, TaskVectorEnv

NUM_STATES = 10
NUM_ACTIONS = 5
HORIZON = 10  # steps


class TabularMDP(TaskVectorEnv):
    """N processes; a task is {"transitions": P [10, 5, 10], "rewards_mean": m [10, 5]}.

    P[s, a] ~ Dirichlet(1, …, 1) and m[s, a] ~ N(1, 1) make a task. An episode starts in state 0 and takes 10 steps:
    r ~ N(m[s, a], 1), then s ~ P[s, a]. The observation is the state, one-hot.
    """

    num_observations = NUM_STATES
    pictures = "rl.envs.tabular_mdp_pictures"

    def __init__(self, num_envs: int):
        super().__init__(
            num_envs,
            single_observation_space=Box(0.0, 1.0, (NUM_STATES,), np.float32),
            single_action_space=Discrete(NUM_ACTIONS),
            horizon=HORIZON,
        )
        self.rows = np.arange(num_envs)
        self.states = np.zeros(num_envs, np.int64)
        self.rewards_mean = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS))
        # bounds[s, a] = Σ_{j ≤ s'} P[s, a, j]; the last is 1 and left out, so that rounding cannot lead past it.
        self.bounds = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS, NUM_STATES - 1))
        self.reward_noise = np.zeros((num_envs, HORIZON))
        self.luck = np.zeros((num_envs, HORIZON))

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Random processes, the same distribution for both splits."""
        transitions = rng.dirichlet(np.ones(NUM_STATES), size=(num_tasks, NUM_STATES, NUM_ACTIONS))
        rewards_mean = rng.normal(1.0, 1.0, size=(num_tasks, NUM_STATES, NUM_ACTIONS))
        return [
            {"transitions": transition, "rewards_mean": mean}
            for transition, mean in zip(transitions.tolist(), rewards_mean.tolist(), strict=True)
        ]

    def assign(self, tasks: list[Task]) -> None:
        """Take over the processes."""
        transitions = np.array([task["transitions"] for task in tasks], np.float64)
        rewards_mean = np.array([task["rewards_mean"] for task in tasks], np.float64)
        if transitions.shape != (*self.rewards_mean.shape, NUM_STATES) or not (
            (transitions >= 0).all() and np.allclose(transitions.sum(axis=-1), 1.0)
        ):
            raise ValueError("tabular MDP: transitions are probabilities [10, 5, 10] that sum to 1 over the last axis")
        if rewards_mean.shape != self.rewards_mean.shape or not np.isfinite(rewards_mean).all():
            raise ValueError("tabular MDP: rewards_mean are finite numbers [10, 5]")
        self.bounds = np.cumsum(transitions, axis=-1)[..., :-1]
        self.rewards_mean = rewards_mean

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Start in state 0 and draw the noise of all steps."""
        self.states[which] = 0
        for i in which:
            self.reward_noise[i] = self.generators[i].standard_normal(HORIZON)
            self.luck[i] = self.generators[i].random(HORIZON)

    def advance(self, actions: Int[np.ndarray, "N"]) -> Step:
        """Earn m[s, a] + ε, move to the first s' whose cumulative probability exceeds u."""
        # The last column stands in for episodes that are over.
        step = np.minimum(self.elapsed, HORIZON - 1)
        rewards = self.rewards_mean[self.rows, self.states, actions] + self.reward_noise[self.rows, step]
        bounds = self.bounds[self.rows, self.states, actions]
        following = (bounds <= self.luck[self.rows, step, None]).sum(axis=1)
        self.states = np.where(self.running, following, self.states)
        return rewards, np.zeros(self.num_envs, bool), {}

    def observe(self) -> Float32[np.ndarray, "N 10"]:
        """One-hot states."""
        observations = np.zeros((self.num_envs, NUM_STATES), np.float32)
        observations[self.rows, self.states] = 1.0
        return observations
