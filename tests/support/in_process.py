"""A setting in which tests sample an environment that misbehaves."""

import numpy as np
import torch

from rl import streams
from rl.policies import Architecture, make_policy
from rl.sampling.jobs import WorkerSpec
from rl.sampling.rollout import AdaptationPlan, StreamName
from tests.support.helpers import random_params

OBSTINATE = WorkerSpec("tests.support.broken_env:Obstinate-v0", {}, Architecture(2, 1, False, 2, (6,)))
PARAMS = random_params(make_policy(OBSTINATE.architecture), dtype=torch.float32)
SAMPLING = AdaptationPlan(num_episodes=2, learning_rates=(0.5,), gamma=0.95, gae_lambda=1.0)
ORIGIN = StreamName(seed=1, iteration=0, phase=streams.TRAIN, first_task=0)


def assert_same_rollouts(left, right):
    """Two `Rollouts` are equal, bit for bit."""
    np.testing.assert_array_equal(left.inner_losses, right.inner_losses)
    for ours, theirs in zip(left.episodes, right.episodes, strict=True):
        for array, other in zip(ours.arrays(), theirs.arrays(), strict=True):
            np.testing.assert_array_equal(array, other)
