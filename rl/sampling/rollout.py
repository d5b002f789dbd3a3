"""Episodes of groups of tasks, by a batched policy in a batched environment, with inner updates in between.

`meta_rollout` is a pure function of its arguments. Every random number in it comes from streams named by (seed,
iteration, phase, task, episode), so that any process computes the same bytes. A group is the tasks whose observations
the policy is given in one call. Several groups may be run side by side, which is faster: the environment steps all
their episodes in one call, and the policy's code is still in the cache for the second group. Nothing that a group
computes depends on the groups beside it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rl import streams
from rl.algorithm import inner_loop
from rl.algorithm.batch import distinct_rows, prepare
from rl.algorithm.inner_objective import INNER_OBJECTIVES
from rl.envs.base import TaskVectorEnv, conforming
from rl.errors import EpisodeError
from rl.policies import MLPPolicy
from rl.policies.heads import Distribution, Head
from rl.sampling.episodes import Episodes
from rl.sampling.interventions import IntervenedPolicy, Intervention
from rl.sampling.recorder import Recorder

Tasks = list[dict[str, Any]]


class AdaptationPlan(NamedTuple):
    """How each task is sampled and adapted to; the same for all groups of a run.

    `learning_rates` has one entry for each update: 1 while meta-training, `--num-test-steps` in an evaluation. With an
    `intervention`, the episodes before, between and after the updates are also sampled under it. The share `explore` of
    each task's episodes before the first update acts at random (`safe_actions` of the environment).
    """

    num_episodes: int
    learning_rates: tuple[float, ...]
    gamma: float
    gae_lambda: float
    inner_objective: str = "score"
    intervention: Intervention | None = None
    explore: float = 0.0


class StreamName(NamedTuple):
    """What names the random streams of some tasks, but for task and episode: their first task is number `first_task`.

    `phase` is training or evaluation (`rl.streams.TRAIN`, `EVALUATE`) plus the number of updates made so far.
    """

    seed: int
    iteration: int
    phase: int
    first_task: int


class Rollouts(NamedTuple):
    """The episodes of K tasks before, between and after U updates.

    Attributes:
        episodes: U + 1 of them: after 0, 1, 2, … updates.
        inner_losses: the inner objective before each update.
        ridge_retries: how often a baseline's ridge had to grow.
        intervened: U + 1 `Episodes` with the same weights, contexts and random numbers under an intervention; empty
            without one.
    """

    episodes: tuple[Episodes, ...]
    inner_losses: Float[np.ndarray, "U K"]
    ridge_retries: int
    intervened: tuple[Episodes, ...] = ()

    def tasks(self, start: int, stop: int) -> "Rollouts":
        """Those of tasks start to stop."""
        episodes, intervened = (
            tuple(episodes.tasks(start, stop) for episodes in part) for part in (self.episodes, self.intervened)
        )
        return Rollouts(episodes, self.inner_losses[:, start:stop], self.ridge_retries, intervened)

    @staticmethod
    def concatenate(parts: Sequence["Rollouts"]) -> "Rollouts":
        """Join tasks along K; all episodes get the names of all `infos`."""
        episodes, intervened = (
            tuple(Episodes.alike([Episodes.concatenate(same) for same in zip(*groups, strict=True)]))
            for groups in zip(*((part.episodes, part.intervened) for part in parts), strict=True)
        )
        inner_losses = np.concatenate([part.inner_losses for part in parts], axis=1)
        return Rollouts(episodes, inner_losses, sum(part.ridge_retries for part in parts), intervened)


class Actor(NamedTuple):
    """Acts on a group of tasks: a policy, its (θ, φ), and the number of tasks."""

    policy: MLPPolicy | IntervenedPolicy
    adapted: inner_loop.Adapted
    num_tasks: int


def meta_rollout(
    env: TaskVectorEnv,
    policy: MLPPolicy,
    params: dict[str, Tensor],
    tasks: Tasks,
    plan: AdaptationPlan,
    stream: StreamName,
    group_size: int | None = None,
) -> Rollouts:
    """Sample episodes, adapt, sample again, for each update.

    Args:
        env: of K·E episodes.
        params: θ.
        tasks: K tasks.
        stream: phase + u names the streams after u updates.
        group_size: tasks of a group, the last one may be smaller; None for one group of all.
    """
    with _episode_errors_named(functools.partial(_place, stream, plan.num_episodes)):
        env.set_tasks([task for task in tasks for _ in range(plan.num_episodes)])
    starts = range(0, len(tasks), group_size or len(tasks))
    groups = [tasks[start : start + starts.step] for start in starts]
    adapted = [inner_loop.unadapted(policy, params, len(group)) for group in groups]
    policies = [policy] * len(groups)
    intervened_policies = [
        IntervenedPolicy(policy, plan.intervention, start, group)
        for start, group in zip(adapted, groups, strict=True)
        if plan.intervention
    ]

    def run_episodes(policies: Sequence[MLPPolicy | IntervenedPolicy], explore: float = 0.0) -> Episodes:
        """All groups' episodes with what they have adapted to so far."""
        actors = [Actor(*each) for each in zip(policies, adapted, map(len, groups), strict=True)]
        return rollout(env, actors, plan.num_episodes, stream, explore)

    episodes = [run_episodes(policies, plan.explore)]
    intervened = [run_episodes(intervened_policies)] if intervened_policies else []
    inner_losses, ridge_retries = [], 0
    for update in range(1, len(plan.learning_rates) + 1):
        sampled = [episodes[-1].tasks(start, start + len(group)) for start, group in zip(starts, groups, strict=True)]
        updates = [update_on(policy, *each, plan, update) for each in zip(adapted, sampled, strict=True)]
        adapted = [stepped for stepped, _, _ in updates]
        stream = stream._replace(phase=stream.phase + 1)
        episodes.append(run_episodes(policies))
        if intervened_policies:
            intervened.append(run_episodes(intervened_policies))
        inner_losses.append(np.concatenate([losses.numpy() for _, losses, _ in updates]))
        ridge_retries += sum(retries for _, _, retries in updates)
    losses = np.stack(inner_losses) if inner_losses else np.zeros((0, len(tasks)), np.float32)
    return Rollouts(tuple(episodes), losses, ridge_retries, tuple(intervened))


def update_on(
    policy: MLPPolicy, adapted: inner_loop.Adapted, episodes: Episodes, plan: AdaptationPlan, update: int
) -> tuple[inner_loop.Adapted, Float[Tensor, " K"], int]:
    """The `update`-th inner step (from 1) on episodes sampled with `adapted`: (where it leads, losses, retries)."""
    (batch,), retries = prepare(episodes, [episodes], plan.gamma, plan.gae_lambda)
    objective = INNER_OBJECTIVES[plan.inner_objective]
    stepped, losses = inner_loop.inner_step(policy, adapted, batch, plan.learning_rates[update - 1], objective)
    return inner_loop.detach(stepped), losses, retries


def rollout(
    env: TaskVectorEnv, actors: Sequence[Actor], num_episodes: int, stream: StreamName, explore: float = 0.0
) -> Episodes:
    """Run all episodes of some groups side by side until each has ended.

    Args:
        env: of N = K·E episodes, task-major, its tasks set.
        actors: one a group, K tasks in all.
        num_episodes: E.
        explore: the share of each task's episodes, its first ones, that act at random among the safe actions.

    Raises:
        FloatingPointError: an action, observation or reward is not finite; names task, episode and step, for an action
            the number of updates, too.
        EpisodeError: an exception in an episode, likewise.
        UserError: observations, rewards or ends of another shape or type than declared; names the step.
    """
    shape = (env.num_envs // num_episodes, num_episodes)
    names = [
        (stream.seed, stream.iteration, stream.phase, stream.first_task + i // num_episodes, i % num_episodes)
        for i in range(env.num_envs)
    ]
    keys = [streams.key(*name, streams.ACTIONS) for name in names]
    noise = action_noise(actors[0].policy.head, keys, env.horizon, shape)
    record = Recorder(env)
    place = functools.partial(_place, stream, num_episodes)
    with _episode_errors_named(place):
        current, _ = env.reset(seed=[streams.key(*name, streams.ENVIRONMENT) for name in names])
    current = record.observed("observations after the reset", current)
    _check_finite("observation of the reset", current, place, None)
    running = np.ones(env.num_envs, bool)
    explorers = np.flatnonzero(np.arange(env.num_envs) % num_episodes < int(explore * num_episodes + 0.5))
    with torch.inference_mode():
        groups, end = [], 0
        for actor in actors:
            start, end = end, end + actor.num_tasks
            groups.append((GroupPolicy(actor), slice(start, end), slice(start * num_episodes, end * num_episodes)))
        for t in range(env.horizon):
            record.observations[t], record.mask[t] = current, running
            actions = record.actions[t]
            for policy, tasks, rows in groups:
                if running[rows].any():
                    distribution = policy(current[rows].reshape(-1, num_episodes, current.shape[-1]))
                    actions[rows] = distribution.sample(noise[t, tasks]).flatten(0, 1).numpy()
            if explorers.size:
                # The same random numbers choose, evenly, among the safe actions.
                safe = env.safe_actions()
                assert safe is not None  # `Setup.check`
                actions[explorers] = _evenly(safe[explorers], noise[t].flatten().numpy()[explorers])
            _check_finite(f"action after {stream.phase % streams.EVALUATE} updates", actions, place, t)
            with _episode_errors_named(place, t):
                # A copy: what was drawn is kept, whatever the environment does to its actions.
                current, rewards, terminated, truncated, infos = env.step(actions.copy())
            current = record.observed(f"observations of step {t}", current)
            record.rewards[t] = conforming(f"rewards of step {t}", rewards, (env.num_envs,), np.float64)
            record.add_infos(t, infos, running)
            _check_finite("observation", current, place, t)
            _check_finite("reward", record.rewards[t], place, t)
            # A user's environment may report an end once, and go on.
            for name, ends in (("terminated", terminated), ("truncated", truncated)):
                running &= ~conforming(f"{name} of step {t}", ends, running.shape, bool)
            if not running.any():
                break
    return record.episodes(shape)


def _evenly(safe: Bool[np.ndarray, "R A"], noise: Float[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
    """One of each row's safe actions, all equally likely, from noise in [0, 1)."""
    number = np.floor(noise * safe.sum(1)).astype(np.int64)
    return (safe.cumsum(1) <= number[:, None]).sum(1)


class GroupPolicy:
    """An actor's policy as a function of observations alone.

    As long as many observations repeat, the network computes each once. Episodes diverge and rarely meet again, so the
    search for repetitions ends at the first step at which few repeat.
    """

    def __init__(self, actor: Actor):
        self.act = actor.policy.bind(*actor.adapted)
        self.repeating = True

    def __call__(self, observations: Float[np.ndarray, "K E O"]) -> Distribution:
        """The distribution over actions."""
        if self.repeating:
            repeats = distinct_rows(observations)
            if repeats is not None:
                distinct, index = (torch.from_numpy(array) for array in repeats)
                return self.act(distinct).gather(index)
            self.repeating = False
        # A copy, since the memory that torch itself allocates is aligned: a product's last bits may depend on that.
        return self.act(torch.tensor(observations))


def _place(stream: StreamName, num_episodes: int, index: int, step: int | None) -> str:
    """The task, episode and step of episode `index` of N, for messages."""
    words = f"task {stream.first_task + index // num_episodes}, episode {index % num_episodes}"
    return words if step is None else f"{words}, step {step}"


@contextlib.contextmanager
def _episode_errors_named(place: Callable[[int, int | None], str], step: int | None = None) -> Iterator[None]:
    """Add the task, episode and, but for resets and tasks, the step to an `EpisodeError`."""
    try:
        yield
    except EpisodeError as error:
        raise EpisodeError(error.index, place(int(error.index), step)) from error.__cause__


def _check_finite(what: str, values: np.ndarray, place: Callable[[int, int | None], str], step: int | None) -> None:
    """Check values [N, ...] of all episodes. The learner needs finite numbers of every environment; those that simulate
    check the actions for themselves as well, for users who step them through gymnasium alone.

    Raises:
        FloatingPointError: naming task, episode and step.
    """
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
        raise FloatingPointError(f"{what} is not finite: {place(index, step)}")


def action_noise(
    head: Head, keys: Sequence[int], horizon: int, shape: tuple[int, int]
) -> Float[Tensor, "T K E"] | Float[Tensor, "T K E A"]:
    """The random numbers that `head`'s distribution turns into actions, from each episode's own stream: uniforms where
    actions are discrete, else standard normals.
    """
    if head.discrete:
        drawn = np.stack([generator.random(horizon, np.float32) for generator in streams.each(keys)], axis=1)
        return torch.from_numpy(drawn).view(horizon, *shape)
    size = (horizon, head.size)
    drawn = np.stack([generator.standard_normal(size, np.float32) for generator in streams.each(keys)], axis=1)
    return torch.from_numpy(drawn).view(horizon, *shape, head.size)
