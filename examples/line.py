"""Walk on a line to a place that the task knows and the observation hides: an environment of one's own.

PYTHONPATH=../examples python main.py --env-name line:Line-v0 --neuromodulation --nm-size 4 --num-batches 50
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Line(gymnasium.Env):
    """Observation: the position [1]; action: a move [1]; reward: minus the distance to the place, after the move."""

    observation_space = Box(-5, 5, (1,), np.float32)
    action_space = Box(-0.2, 0.2, (1,), np.float32)

    def __init__(self):
        self.place = 1.0
        self.position = np.zeros(1, np.float32)

    def sample_tasks(self, num_tasks, split, rng):
        """A list of `num_tasks` dicts that JSON can hold; `split` is "train" or "test"."""
        return [{"place": place} for place in rng.uniform(-2, 2, num_tasks).tolist()]

    def set_tasks(self, tasks):
        """Take over the task, in a list of one."""
        self.place = tasks[0]["place"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = np.zeros(1, np.float32)
        return self.position, {}

    def step(self, action):
        self.position = self.position + action
        distance = abs(self.position[0] - self.place)
        return self.position, -distance, bool(distance < 0.01), False, {"success": bool(distance < 0.1)}


gymnasium.register("Line-v0", entry_point=Line, max_episode_steps=20)
