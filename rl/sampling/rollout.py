"""Groups of tasks: a batched policy and a batched environment make episodes, updates in between.

`meta_rollout` is a pure function of its arguments. Every random number in it comes from streams named by (seed,
iteration, phase, task, episode), so that any process computes the same bytes. A group is what the policy sees at once.
Several of them may walk side by side, which is faster: the environment steps all their episodes in one call, and the
policy's code is still in the cache for the second group. Nothing that a group computes depends on those beside it.
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
from rl.sampling.interventions import Intervened, Intervention


class Sampling(NamedTuple):
    """How to sample and adapt; the same for all groups of a run.

    `learning_rates` has one entry for each update: 1 while meta-training, `--num-test-steps` in an evaluation. With an
    `intervention`, what is learnt is also tried under it.
    """

    num_episodes: int
    learning_rates: tuple[float, ...]
    gamma: float
    gae_lambda: float
    intervention: Intervention | None = None


class Origin(NamedTuple):
    """Where in a run a group of tasks stands; names its random streams. `first_task` numbers the group's first task."""

    seed: int
    iteration: int
    phase: int
    first_task: int


class Phases(NamedTuple):
    """What a group of K tasks saw: U updates, U + 1 phases.

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
        """What tasks start to stop saw."""
        episodes, intervened = (
            tuple(phase.tasks(start, stop) for phase in phases) for phases in (self.episodes, self.intervened)
        )
        return Phases(episodes, self.inner_losses[:, start:stop], self.ridge_retries, intervened)

    @staticmethod
    def concatenate(parts):
        """Join groups along K; what the environment told in one phase, all phases tell."""
        episodes, intervened = (
            tuple(Episodes.alike([Episodes.concatenate(same) for same in zip(*groups, strict=True)]))
            for groups in zip(*((part.episodes, part.intervened) for part in parts), strict=True)
        )
        inner_losses = np.concatenate([part.inner_losses for part in parts], axis=1)
        return Phases(episodes, inner_losses, sum(part.ridge_retries for part in parts), intervened)


class Acting(NamedTuple):
    """Who acts on a group of tasks: a policy (or what stands for one) with its (θ, φ), and how many tasks they are."""

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
        sampling: `Sampling`.
        origin: `Origin`; phase + u names the streams after u updates.
        group_size: tasks of a group, the last one may be smaller; None for one group of all.

    Returns:
        `Phases`
    """
    env.set_tasks([task for task in tasks for _ in range(sampling.num_episodes)])
    starts = range(0, len(tasks), group_size or len(tasks))
    groups = [tasks[start : start + starts.step] for start in starts]
    adapted = [inner_loop.unadapted(policy, params, len(group)) for group in groups]
    acting = [policy] * len(groups)
    changed = [
        Intervened(policy, sampling.intervention, start, group)
        for start, group in zip(adapted, groups, strict=True)
        if sampling.intervention
    ]

    def walk(policies):
        who = [Acting(*each, len(group)) for *each, group in zip(policies, adapted, groups, strict=True)]
        return rollout(env, who, sampling.num_episodes, origin)

    episodes, intervened = [walk(acting)], [walk(changed)] if changed else []
    inner_losses, ridge_retries = [], 0
    for update in range(1, len(sampling.learning_rates) + 1):
        seen = [episodes[-1].tasks(start, start + len(group)) for start, group in zip(starts, groups, strict=True)]
        updates = [update_on(policy, *each, sampling, update) for each in zip(adapted, seen, strict=True)]
        adapted = [stepped for stepped, _, _ in updates]
        origin = origin._replace(phase=origin.phase + 1)
        episodes.append(walk(acting))
        if changed:
            intervened.append(walk(changed))
        inner_losses.append(np.concatenate([losses.numpy() for _, losses, _ in updates]))
        ridge_retries += sum(retries for _, _, retries in updates)
    return Phases(tuple(episodes), np.stack(inner_losses), ridge_retries, tuple(intervened))


def update_on(policy, adapted, episodes, sampling, update):
    """The `update`-th inner step (from 1) on episodes sampled with `adapted`: (new `Adapted`, losses [K], retries)."""
    (batch,), retries = prepare(episodes, [episodes], sampling.gamma, sampling.gae_lambda)
    stepped, losses = inner_loop.inner_step(policy, adapted, batch, sampling.learning_rates[update - 1])
    return inner_loop.detach(stepped), losses, retries


def rollout(env, acting, num_episodes, origin):
    """Run all episodes of some groups side by side until each has ended.

    Args:
        env: `TaskVectorEnv` of N = K·E episodes, task-major, its tasks set.
        acting: one `Acting` a group, K tasks in all.
        num_episodes: E.
        origin: `Origin` whose phase names the streams.

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
    noise = action_noise(acting[0].policy.head, [streams.key(*name, streams.ACTIONS) for name in names], horizon, shape)
    observations = np.zeros((horizon, num_envs, env.single_observation_space.shape[0]), np.float32)
    actions = np.zeros((horizon, num_envs, *env.single_action_space.shape), env.single_action_space.dtype)
    rewards = np.zeros((horizon, num_envs))
    mask = np.zeros((horizon, num_envs), np.float32)
    infos = {}

    place = functools.partial(_place, origin, num_episodes)
    with _placed(place, None):
        current, _ = env.reset(seed=[streams.key(*name, streams.ENVIRONMENT) for name in names])
    conforming("observations after the reset", current, observations.shape[1:], np.float32)
    running = np.ones(num_envs, bool)
    with torch.inference_mode():
        groups, end = [], 0
        for who in acting:
            start, end = end, end + who.num_tasks
            groups.append((Looking(who), slice(start, end), slice(start * num_episodes, end * num_episodes)))
        for t in range(horizon):
            observations[t], mask[t] = current, running
            for look, tasks, rows in groups:
                if running[rows].any():
                    distribution = look(current[rows].reshape(-1, num_episodes, current.shape[-1]))
                    actions[t, rows] = distribution.sample(noise[t, tasks]).flatten(0, 1).numpy()
            _check_finite("action", actions[t], place, t)
            with _placed(place, t):
                current, earned, terminated, truncated, told = env.step(actions[t])
            conforming(f"observations of step {t}", current, observations.shape[1:], np.float32)
            rewards[t] = conforming(f"rewards of step {t}", earned, (num_envs,), np.float64)
            for name, values in told.items():
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


class Looking:
    """A group's policy, called step after step with observations [K, E, O] -> the distribution over actions.

    As long as many observations repeat, the network sees each once. Episodes part and hardly meet again: once few
    repeat, nobody looks for repetitions any more.
    """

    def __init__(self, acting):
        self.act = acting.policy.bind(*acting.adapted)
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
    """In words, where episode `index` of a group stands."""
    words = f"task {origin.first_task + index // num_episodes}, episode {index % num_episodes}"
    return words if step is None else f"{words}, step {step}"


@contextlib.contextmanager
def _placed(place, step):
    """Tell an `EpisodeError` where it is."""
    try:
        yield
    except EpisodeError as error:
        raise EpisodeError(error.index, place(error.index, step)) from error.__cause__


def _check_finite(what, values, place, step):
    """Stop at the first of some values [N, ...] that is not finite.

    Raises:
        FloatingPointError: naming task, episode and step.
    """
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
        raise FloatingPointError(f"{what} is not finite: {place(index, step)}")


def action_noise(head, keys, horizon, shape):
    """The numbers that choose actions, from each episode's own stream.

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
