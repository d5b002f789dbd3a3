"""Episodes of groups of tasks, by a batched policy in a batched environment, with inner updates in between.

`meta_rollout` is a pure function of its arguments. Every random number in it comes from streams named by (seed,
iteration, phase, task, episode), so that any process computes the same bytes. A group is the tasks whose observations
the policy is given in one call. Several groups may be run side by side, which is faster: the environment steps all
their episodes in one call, and the policy's code is still in the cache for the second group. Nothing that a group
computes depends on the groups beside it.
"""

import contextlib
import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from rl import streams
from rl.algorithm import inner_loop
from rl.algorithm.batch import distinct_rows, prepare
from rl.envs.base import conforming
from rl.errors import EpisodeError
from rl.sampling.episodes import Episodes
from rl.sampling.interventions import IntervenedPolicy, Intervention


class AdaptationPlan(NamedTuple):
    """How to sample and adapt; the same for all groups of a run.

    `learning_rates` has one entry for each update: 1 while meta-training, `--num-test-steps` in an evaluation. With an
    `intervention`, every phase is also sampled under it.
    """

    num_episodes: int
    learning_rates: tuple[float, ...]
    gamma: float
    gae_lambda: float
    intervention: Intervention | None = None


class StreamName(NamedTuple):
    """What names the random streams of a group of tasks; `first_task` is the number of its first task in the phase."""

    seed: int
    iteration: int
    phase: int
    first_task: int


class Rollouts(NamedTuple):
    """The episodes of K tasks in U + 1 phases, with U updates between them.

    Attributes:
        episodes: tuple of U + 1 `Episodes`.
        inner_losses: [U, K] REINFORCE losses before each update.
        ridge_retries: how often a baseline's ridge had to grow.
        intervened: tuple of U + 1 `Episodes` with the same weights, contexts and random numbers under an intervention;
            empty without one.
    """

    episodes: tuple[Episodes, ...]
    inner_losses: np.ndarray
    ridge_retries: int
    intervened: tuple[Episodes, ...] = ()

    def tasks(self, start, stop):
        """The phases of tasks start to stop."""
        episodes, intervened = (
            tuple(phase.tasks(start, stop) for phase in phases) for phases in (self.episodes, self.intervened)
        )
        return Rollouts(episodes, self.inner_losses[:, start:stop], self.ridge_retries, intervened)

    @staticmethod
    def concatenate(parts):
        """Join groups along K; all phases get the names of all `infos`."""
        episodes, intervened = (
            tuple(Episodes.alike([Episodes.concatenate(same) for same in zip(*groups, strict=True)]))
            for groups in zip(*((part.episodes, part.intervened) for part in parts), strict=True)
        )
        inner_losses = np.concatenate([part.inner_losses for part in parts], axis=1)
        return Rollouts(episodes, inner_losses, sum(part.ridge_retries for part in parts), intervened)


class Actor(NamedTuple):
    """Acts on a group of tasks: an `MLPPolicy` or `IntervenedPolicy`, its (θ, φ), and the number of tasks."""

    policy: Any
    adapted: inner_loop.Adapted
    num_tasks: int


def meta_rollout(env, policy, params, tasks, sampling, origin, group_size=None):
    """Sample episodes, adapt, sample again, for each update.

    Args:
        env: `TaskVectorEnv` of K·E episodes.
        policy: `MLPPolicy`.
        params: θ, dict of tensors.
        tasks: list of K tasks.
        sampling: `AdaptationPlan`.
        origin: `StreamName`; phase + u names the streams after u updates.
        group_size: tasks of a group, the last one may be smaller; None for one group of all.

    Returns:
        `Rollouts`
    """
    env.set_tasks([task for task in tasks for _ in range(sampling.num_episodes)])
    starts = range(0, len(tasks), group_size or len(tasks))
    groups = [tasks[start : start + starts.step] for start in starts]
    adapted = [inner_loop.unadapted(policy, params, len(group)) for group in groups]
    policies = [policy] * len(groups)
    intervened_policies = [
        IntervenedPolicy(policy, sampling.intervention, start, group)
        for start, group in zip(adapted, groups, strict=True)
        if sampling.intervention
    ]

    def run_episodes(policies):
        """All groups' episodes with what they have adapted to so far."""
        sizes = map(len, groups)
        actors = [Actor(*each) for each in zip(policies, adapted, sizes, strict=True)]
        return rollout(env, actors, sampling.num_episodes, origin)

    episodes = [run_episodes(policies)]
    intervened = [run_episodes(intervened_policies)] if intervened_policies else []
    inner_losses, ridge_retries = [], 0
    for update in range(1, len(sampling.learning_rates) + 1):
        sampled = [episodes[-1].tasks(start, start + len(group)) for start, group in zip(starts, groups, strict=True)]
        updates = [update_on(policy, *each, sampling, update) for each in zip(adapted, sampled, strict=True)]
        adapted = [stepped for stepped, _, _ in updates]
        origin = origin._replace(phase=origin.phase + 1)
        episodes.append(run_episodes(policies))
        if intervened_policies:
            intervened.append(run_episodes(intervened_policies))
        inner_losses.append(np.concatenate([losses.numpy() for _, losses, _ in updates]))
        ridge_retries += sum(retries for _, _, retries in updates)
    return Rollouts(tuple(episodes), np.stack(inner_losses), ridge_retries, tuple(intervened))


def update_on(policy, adapted, episodes, sampling, update):
    """The `update`-th inner step (from 1) on episodes sampled with `adapted`: (new `Adapted`, losses [K], retries)."""
    (batch,), retries = prepare(episodes, [episodes], sampling.gamma, sampling.gae_lambda)
    stepped, losses = inner_loop.inner_step(policy, adapted, batch, sampling.learning_rates[update - 1])
    return inner_loop.detach(stepped), losses, retries


def rollout(env, actors, num_episodes, origin):
    """Run all episodes of some groups side by side until each has ended.

    Args:
        env: `TaskVectorEnv` of N = K·E episodes, task-major, its tasks set.
        actors: one `Actor` a group, K tasks in all.
        num_episodes: E.
        origin: `StreamName` whose phase names the streams.

    Returns:
        `Episodes`

    Raises:
        FloatingPointError: an action, observation or reward is not finite; names task, episode and step.
        EpisodeError: an exception in an episode, likewise.
        UserError: observations or rewards of another shape or type than declared; names the step.
    """
    num_envs, horizon = env.num_envs, env.horizon
    shape = (num_envs // num_episodes, num_episodes)
    names = [
        (origin.seed, origin.iteration, origin.phase, origin.first_task + i // num_episodes, i % num_episodes)
        for i in range(num_envs)
    ]
    noise = action_noise(actors[0].policy.head, [streams.key(*name, streams.ACTIONS) for name in names], horizon, shape)
    observations = np.zeros((horizon, num_envs, env.single_observation_space.shape[0]), np.float32)
    actions = np.zeros((horizon, num_envs, *env.single_action_space.shape), env.single_action_space.dtype)
    rewards = np.zeros((horizon, num_envs))
    mask = np.zeros((horizon, num_envs), np.float32)
    infos = {}

    place = functools.partial(_place, origin, num_episodes)
    with _episode_errors_named(place):
        current, _ = env.reset(seed=[streams.key(*name, streams.ENVIRONMENT) for name in names])
    conforming("observations after the reset", current, observations.shape[1:], np.float32)
    running = np.ones(num_envs, bool)
    with torch.inference_mode():
        groups, end = [], 0
        for actor in actors:
            start, end = end, end + actor.num_tasks
            groups.append((GroupPolicy(actor), slice(start, end), slice(start * num_episodes, end * num_episodes)))
        for t in range(horizon):
            observations[t], mask[t] = current, running
            for policy, tasks, rows in groups:
                if running[rows].any():
                    distribution = policy(current[rows].reshape(-1, num_episodes, current.shape[-1]))
                    actions[t, rows] = distribution.sample(noise[t, tasks]).flatten(0, 1).numpy()
            _check_finite("action", actions[t], place, t)
            with _episode_errors_named(place, t):
                current, step_rewards, terminated, truncated, step_infos = env.step(actions[t])
            conforming(f"observations of step {t}", current, observations.shape[1:], np.float32)
            rewards[t] = conforming(f"rewards of step {t}", step_rewards, (num_envs,), np.float64)
            for name, values in step_infos.items():
                if np.shape(values) != (num_envs,):
                    continue
                if name not in infos:
                    infos[name] = np.zeros((horizon, num_envs), values.dtype)
                infos[name][t, running] = values[running]
            _check_finite("observation", current, place, t)
            _check_finite("reward", rewards[t], place, t)
            running = ~(terminated | truncated)
            if not running.any():
                break
    observations *= mask[..., None]
    actions *= mask.reshape(mask.shape + (1,) * (actions.ndim - 2)).astype(actions.dtype)
    arrays = (by_task(array, shape) for array in (observations, actions, rewards, mask))
    return Episodes(*arrays, {name: by_task(values, shape) for name, values in infos.items()})


class GroupPolicy:
    """An actor's policy as a function of observations [K, E, O] alone -> the distribution over actions.

    As long as many observations repeat, the network computes each once. Episodes diverge and rarely meet again, so the
    search for repetitions ends at the first step at which few repeat.
    """

    def __init__(self, actor):
        self.act = actor.policy.bind(*actor.adapted)
        self.repeating = True

    def __call__(self, observations):
        if self.repeating:
            repeats = distinct_rows(observations)
            if repeats is not None:
                distinct, index = (torch.from_numpy(array) for array in repeats)
                return self.act(distinct).gather(index)
            self.repeating = False
        # A copy, since the memory that torch itself allocates is aligned: a product's last bits may depend on that.
        return self.act(torch.tensor(observations))


def _place(origin, num_episodes, index, step):
    """The task, episode and step of episode `index` of N, for messages."""
    words = f"task {origin.first_task + index // num_episodes}, episode {index % num_episodes}"
    return words if step is None else f"{words}, step {step}"


@contextlib.contextmanager
def _episode_errors_named(place, step=None):
    """Add the task, episode and step to an `EpisodeError`."""
    try:
        yield
    except EpisodeError as error:
        raise EpisodeError(error.index, place(error.index, step)) from error.__cause__


def _check_finite(what, values, place, step):
    """Check values [N, ...] of all episodes. The learner needs finite numbers of every environment; those that simulate
    check the actions for themselves as well, for users who step them through gymnasium alone.

    Raises:
        FloatingPointError: naming task, episode and step.
    """
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
        raise FloatingPointError(f"{what} is not finite: {place(index, step)}")


def action_noise(head, keys, horizon, shape):
    """The random numbers that `head`'s distribution turns into actions, from each episode's own stream.

    Returns:
        tensor [T, K, E, A] of standard normals, or [T, K, E] of uniforms where actions are discrete
    """
    if head.discrete:
        drawn = np.stack([generator.random(horizon, np.float32) for generator in streams.each(keys)], axis=1)
        return torch.from_numpy(drawn).view(horizon, *shape)
    size = (horizon, head.size)
    drawn = np.stack([generator.standard_normal(size, np.float32) for generator in streams.each(keys)], axis=1)
    return torch.from_numpy(drawn).view(horizon, *shape, head.size)


def by_task(array, shape):
    """[T, K·E, ...] -> [K, T, E, ...], contiguous."""
    split = array.reshape(array.shape[0], *shape, *array.shape[2:])
    return np.ascontiguousarray(np.moveaxis(split, 1, 0))
