"""Sampling without worker processes, and a setting in which tests sample an environment that misbehaves."""

import numpy as np
import torch

from rl import envs, streams
from rl.policies import Architecture, make_policy
from rl.sampling.rollout import AdaptationPlan, Rollouts, StreamName, meta_rollout
from rl.sampling.worker_pool import WorkerSpec
from tests.support.helpers import random_params

OBSTINATE = WorkerSpec("tests.support.broken_env:Obstinate-v0", {}, Architecture(2, 1, False, 2, (6,)))
PARAMS = random_params(make_policy(OBSTINATE.architecture), dtype=torch.float32)
SAMPLING = AdaptationPlan(num_episodes=2, learning_rates=(0.5,), gamma=0.95, gae_lambda=1.0)
ORIGIN = StreamName(seed=1, iteration=0, phase=streams.TRAIN, first_task=0)


class InProcessSampler:
    """Samples what the worker processes would, group after group, in this process.

    Args:
        setting: `WorkerSpec`.
        tasks_per_group: how many tasks are computed together.
    """

    restarts = 0

    def __init__(self, setting, tasks_per_group=5):
        self.setting = setting
        self.tasks_per_group = tasks_per_group
        self.policy = make_policy(setting.architecture)

    def sample(self, params, tasks, sampling, origin):
        """As `rl.sampling.worker_pool.WorkerPool.sample`."""
        groups = []
        for start in range(0, len(tasks), self.tasks_per_group):
            group = tasks[start : start + self.tasks_per_group]
            env = envs.make(self.setting.env_name, len(group) * sampling.num_episodes, **self.setting.env_options)
            first = origin._replace(first_task=origin.first_task + start)
            groups.append(meta_rollout(env, self.policy, params, group, sampling, first))
        return Rollouts.concatenate(groups)

    def close(self):
        """As `rl.sampling.worker_pool.WorkerPool.close`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def assert_same_phases(left, right):
    """Two `Rollouts` are equal, bit for bit."""
    np.testing.assert_array_equal(left.inner_losses, right.inner_losses)
    for ours, theirs in zip(left.episodes, right.episodes, strict=True):
        for array, other in zip(ours.arrays(), theirs.arrays(), strict=True):
            np.testing.assert_array_equal(array, other)
