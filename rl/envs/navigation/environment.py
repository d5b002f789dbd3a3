"""2DNavigation-v0: walk from the origin of a plane to a goal that the task knows and the observation hides.

As published with MAML (arXiv 1703.03400) and CAVIA (arXiv 1810.03642).
"""

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float32, Int

from rl.envs.base import Step, Task, TaskVectorEnv

HORIZON = 100  # steps
MAX_MOVE = 0.1  # plane units an axis and step
GOAL_RANGE = 0.5  # goals are uniform on [−0.5, 0.5]²
GOAL_TOLERANCE = 0.01  # an episode ends when both |Δx| and |Δy| are below this


class Navigation(TaskVectorEnv):
    """N points on the plane; a task is {"goal": [x, y]}.

    x₀ = 0;  xₜ₊₁ = xₜ + clip(aₜ, ±0.1);  rₜ = −‖xₜ₊₁ − goal‖₂; the end is |Δx| < 0.01 and |Δy| < 0.01 after the move.

    The position is float32, as in the published environment, so what the policy sees is the whole state; distances are
    taken in float64.
    """

    pictures = "rl.envs.navigation.pictures"

    def __init__(self, num_envs: int):
        # HORIZON moves of MAX_MOVE, with room for float32 rounding.
        reach = 1.001 * HORIZON * MAX_MOVE
        super().__init__(
            num_envs,
            single_observation_space=Box(-reach, reach, (2,), np.float32),
            single_action_space=Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32),
            horizon=HORIZON,
        )
        self.positions = np.zeros((num_envs, 2), np.float32)
        self.goals = np.zeros((num_envs, 2))

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Goals uniform on the square [−0.5, 0.5]², the same for both splits."""
        return [{"goal": goal} for goal in rng.uniform(-GOAL_RANGE, GOAL_RANGE, size=(num_tasks, 2)).tolist()]

    def assign(self, tasks: list[Task]) -> None:
        """Take over the goals."""
        goals = np.array([task["goal"] for task in tasks], np.float64)
        if goals.shape != (self.num_envs, 2) or not np.isfinite(goals).all():
            raise ValueError("2D navigation: a goal is two finite numbers")
        self.goals = goals

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Put the points at the origin; nothing is random."""
        self.positions[which] = 0.0

    def advance(self, actions: Float[np.ndarray, "N 2"]) -> Step:
        """Move, clipped to ±0.1 an axis."""
        moves = np.minimum(np.maximum(actions.astype(np.float32, copy=False), -MAX_MOVE), MAX_MOVE)
        np.add(self.positions, moves, out=self.positions, where=self.running[:, None])
        offsets = self.positions - self.goals
        squares = offsets * offsets
        arrived = np.abs(offsets) < GOAL_TOLERANCE
        return -np.sqrt(squares[:, 0] + squares[:, 1]), arrived[:, 0] & arrived[:, 1], {}

    def observe(self) -> Float32[np.ndarray, "N 2"]:
        """The positions."""
        return self.positions.copy()
