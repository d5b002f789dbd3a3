"""Recorded episodes made by hand, for the tests of environments' own pictures."""

import numpy as np

from rl.drawing import Recorded
from rl.envs.labels import in_words


def recorded(tasks, chosen, observations, actions=None, **more):
    """Full episodes [K, T, E, U + 1, …] as an evaluation records them; `more` are other fields of `Recorded`."""
    episodes = {"observations": observations, "mask": np.ones(observations.shape[:4])}
    episodes["actions"] = observations if actions is None else actions
    return Recorded(tasks, [in_words(task) for task in tasks], chosen, episodes | more.pop("infos", {}), **more)
