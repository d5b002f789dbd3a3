"""One group of tasks: a batched policy and a batched environment make episodes, updates in between.

`meta_rollout` is a pure function of its arguments. Every random number in it comes from streams named by (seed,
iteration, phase, task, episode), so that any process computes the same bytes.
"""

import contextlib
import functools
from typing import NamedTuple

import numpy as np
import torch

from rl import adaptation, streams
from rl.batch import distinct_rows, prepare
from rl.episodes import Episodes
from rl.errors import EpisodeError
from rl.interventions import Intervened, Intervention


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
        """Join groups along K."""
        return Phases(
            tuple(Episodes.concatenate(phase) for phase in zip(*(part.episodes for part in parts), strict=True)),
            np.concatenate([part.inner_losses for part in parts], axis=1),
            sum(part.ridge_retries for part in parts),
            tuple(Episodes.concatenate(phase) for phase in zip(*(part.intervened for part in parts), strict=True)),
        )


def meta_rollout(env, policy, params, tasks, sampling, origin):
    """Sample episodes, adapt, sample again, for each update.

    Args:
        env: `TaskVectorEnv` of K·E episodes.
        policy: `MLPPolicy`.
        params: θ, dict of tensors.
        tasks: list of K tasks.
        sampling: `Sampling`.
        origin: `Origin`; phase + u names the streams after u updates.

    Returns:
        `Phases`
    """
    env.set_tasks([task for task in tasks for _ in range(sampling.num_episodes)])
    adapted = adaptation.unadapted(policy, params, len(tasks))
    changed = sampling.intervention and Intervened(policy, sampling.intervention, adapted, tasks)
    episodes, intervened = [rollout(env, policy, adapted, sampling.num_episodes, origin)], []
    if changed:
        intervened.append(rollout(env, changed, adapted, sampling.num_episodes, origin))
    inner_losses, ridge_retries = [], 0
    for update in range(1, len(sampling.learning_rates) + 1):
        adapted, losses, retries = update_on(policy, adapted, episodes[-1], sampling, update)
        origin = origin._replace(phase=origin.phase + 1)
        episodes.append(rollout(env, policy, adapted, sampling.num_episodes, origin))
        if changed:
            intervened.append(rollout(env, changed, adapted, sampling.num_episodes, origin))
        inner_losses.append(losses.numpy())
        ridge_retries += retries
    return Phases(tuple(episodes), np.stack(inner_losses), ridge_retries, tuple(intervened))


def update_on(policy, adapted, episodes, sampling, update):
    """The `update`-th inner step (from 1) on episodes sampled with `adapted`: (new `Adapted`, losses [K], retries)."""
    (batch,), retries = prepare(episodes, [episodes], sampling.gamma, sampling.gae_lambda)
    stepped, losses = adaptation.inner_step(policy, adapted, batch, sampling.learning_rates[update - 1])
    return adaptation.detach(stepped), losses, retries


def rollout(env, policy, adapted, num_episodes, origin):
    """Run all episodes of a group side by side until each has ended.

    Args:
        env: `TaskVectorEnv` of N = K·E episodes, task-major, its tasks set.
        policy, adapted: π and its (θ, φ).
        num_episodes: E.
        origin: `Origin` whose phase names the streams.

    Returns:
        `Episodes`

    Raises:
        FloatingPointError: an action, observation or reward is not finite; names task, episode and step.
        EpisodeError: an exception in an episode, likewise.
    """
    num_envs, horizon = env.num_envs, env.horizon
    shape = (num_envs // num_episodes, num_episodes)
    names = [
        (origin.seed, origin.iteration, origin.phase, origin.first_task + i // num_episodes, i % num_episodes)
        for i in range(num_envs)
    ]
    noise = action_noise(policy.head, [streams.key(*name, streams.ACTIONS) for name in names], horizon, shape)
    observations = np.zeros((horizon, num_envs, env.single_observation_space.shape[0]), np.float32)
    actions = np.zeros((horizon, num_envs, *env.single_action_space.shape), env.single_action_space.dtype)
    rewards = np.zeros((horizon, num_envs))
    mask = np.zeros((horizon, num_envs), np.float32)
    infos = {}

    place = functools.partial(_place, origin, num_episodes)
    with _placed(place, None):
        current, _ = env.reset(seed=[streams.key(*name, streams.ENVIRONMENT) for name in names])
    running = np.ones(num_envs, bool)
    with torch.inference_mode():
        act = policy.bind(*adapted)
        for t in range(horizon):
            distribution = look(act, current.reshape(*shape, -1))
            chosen = distribution.sample(noise[t]).numpy().reshape(actions.shape[1:])
            observations[t], actions[t], mask[t] = current, chosen, running
            _check_finite("action", chosen, place, t)
            with _placed(place, t):
                current, rewards[t], terminated, truncated, told = env.step(chosen)
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


def look(act, observations):
    """The distribution over actions at observations [K, E, O]; where many repeat, the network `act` sees each once."""
    repeats = distinct_rows(observations)
    if repeats is None:
        return act(torch.from_numpy(observations))
    distinct, index = (torch.from_numpy(array) for array in repeats)
    return act(distinct).gather(index)


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
