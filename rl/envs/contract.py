"""The contract: what training and evaluation rely on in an environment, each point a function that raises
`ContractError` where it does not hold. `rl/envs/check.py` and the tests of the built-in environments call them.

Axes: N episodes side by side, T steps, O observation size.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env, check_reset_seed_determinism, check_step_determinism
from jaxtyping import Shaped

from rl import envs, streams
from rl.envs.base import Task, TaskVectorEnv

Record = dict[str, Shaped[np.ndarray, "_ _ ..."]]

# Vector steps after which tasks that have made no difference are said to make none.
STEPS_TO_TELL_TASKS_APART = 20_000


class ContractError(AssertionError):
    """A point of the contract does not hold: where, what was found, and what was expected."""


def draw_actions(env: Any, num_steps: int, rng: np.random.Generator) -> Shaped[np.ndarray, "T N ..."]:
    """Random actions; those of a Box reach half its width beyond its bounds, or beyond ±1 without bounds.

    Args:
        env: a `TaskVectorEnv` of N episodes.
        num_steps: T.
        rng: a generator.
    """
    space = env.single_action_space
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=(num_steps, env.num_envs))
    if isinstance(space, MultiDiscrete):
        return rng.integers(space.nvec, size=(num_steps, env.num_envs, len(space.nvec)))
    low, high = np.where(np.isfinite(space.low), space.low, -1), np.where(np.isfinite(space.high), space.high, 1)
    center, half = (high + low) / 2, (high - low) / 2
    return center + 1.5 * half * rng.uniform(-1, 1, (num_steps, *env.action_space.shape)).astype(np.float32)


def draw_tasks(name: str, env: Any, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
    """As `rl.envs.sample_tasks`, but any number: of an environment that draws equally from classes, the first tasks."""
    count = env.num_classes(split) if isinstance(env, TaskVectorEnv) else 1
    return envs.sample_tasks(name, env, math.ceil(num_tasks / count) * count, split, rng)[:num_tasks]


class Subject(NamedTuple):
    """An environment to be held against the contract.

    Attributes:
        name: a built-in id, or package.module:Id.
        options: as from `rl.envs.options`.
        draw_actions: as the function above; another one where chance gets nowhere.
        num_steps: T, how many steps the comparisons take, at least 10.
    """

    name: str
    options: dict[str, Any]
    draw_actions: Callable = draw_actions
    num_steps: int = 30

    def make(self, num_envs: int) -> Any:
        """The environment with N episodes side by side."""
        return envs.make(self.name, num_envs, **self.options)

    def episodes(
        self, num_envs: int, num_steps: int | None = None
    ) -> tuple[Any, list[Task], Shaped[np.ndarray, "T N ..."]]:
        """An environment, a task for each of its episodes, and actions for them."""
        env = self.make(num_envs)
        rng = np.random.default_rng(5)
        tasks = draw_tasks(self.name, env, num_envs, "train", rng)
        return env, tasks, self.draw_actions(env, num_steps or self.num_steps, rng)


def keys(count: int, run: int = 0) -> list[int]:
    """Distinct 128-bit keys of random streams."""
    return [streams.key(2**31 + run, iteration=7, episode=i) for i in range(count)]


def roll(env: Any, seeds: Any, tasks: list[Task], actions: Shaped[np.ndarray, "T N ..."]) -> Record:
    """Play episodes to the end of `actions`.

    Returns:
        observations [T + 1, N, O]; rewards, terminated, truncated and every info [T, N]. An info that
        a step does not tell is 0 there.
    """
    env.set_tasks(tasks)
    observations, _ = env.reset(seed=seeds)
    record = {"observations": [observations], "rewards": [], "terminated": [], "truncated": []}
    step_infos = []
    for action in actions:
        observations, rewards, terminated, truncated, infos = env.step(action)
        step = {"observations": observations, "rewards": rewards, "terminated": terminated, "truncated": truncated}
        for field, values in step.items():
            record[field].append(values)
        step_infos.append(infos)
    for field, values in ((field, values) for infos in step_infos for field, values in infos.items()):
        record.setdefault(field, [infos.get(field, np.zeros_like(values)) for infos in step_infos])
    return {field: np.stack(values) for field, values in record.items()}


def expect(holds: Any, message: str) -> None:
    """Raise a `ContractError` with the message unless something holds."""
    if not holds:
        raise ContractError(message)


def expect_same(found: Record, expected: Record, what: str) -> None:
    """Two records agree bit for bit; an info that one of them does not tell is 0 there.

    Args:
        found, expected: as from `roll`.
        what: what they are, for the message.
    """
    for field in {**found, **expected}:
        left, right = (one.get(field, np.zeros_like((found | expected)[field])) for one in (found, expected))
        for kind in ("dtype", "shape"):
            left_kind, right_kind = getattr(left, kind), getattr(right, kind)
            expect(left_kind == right_kind, f"{what}: {field}: {kind} {left_kind}; expected {right_kind}")
        differs = (left != right) & ~((left != left) & (right != right))  # NaN is no difference here
        for t, i in np.argwhere(differs.reshape(*left.shape[:2], -1).any(axis=2))[:1]:
            raise ContractError(f"{what}: {field}[{t}]: {left[t, i]} in episode {i}; expected {right[t, i]}")


def tasks_are_data(subject: Subject) -> None:
    """Tasks are dicts that JSON can hold, for both splits, drawn from the given generator alone."""
    env, other = subject.make(1), subject.make(1)
    for split in ("train", "test"):

        def draw(count: int, seed: int, env: Any = env, split: str = split) -> list[Task]:
            return draw_tasks(subject.name, env, count, split, np.random.default_rng(seed))

        tasks = draw(3, 1)
        expect(draw(3, 1) == tasks, f"{split} tasks: others from an equal generator; expected the same")
        expect(
            draw(20, 1, other) != draw(20, 2), f"{split} tasks: the same from two generators; expected them to differ"
        )
        expect(draw(0, 1) == [], f"{split} tasks: some where 0 were wanted; expected an empty list")


def declared(subject: Subject) -> None:
    """Observations, rewards and ends are as declared, and finite."""
    env, tasks, actions = subject.episodes(5)
    space = env.single_observation_space
    flat = isinstance(space, Box) and space.dtype == np.float32 and len(space.shape) == 1
    expect(flat, f"observation space {space}; expected a one-dimensional float32 Box")
    expect(
        isinstance(env.single_action_space, Box | Discrete | MultiDiscrete),
        f"action space {env.single_action_space}; expected a Box, Discrete or MultiDiscrete",
    )
    expect(
        isinstance(env.horizon, int | np.integer) and env.horizon >= 1,
        f"horizon {env.horizon!r}; expected an integer of at least 1",
    )
    record = roll(env, keys(5), tasks, actions)
    shape = (len(actions) + 1, 5, *space.shape)
    found = record["observations"]
    expect(
        found.shape == shape and found.dtype == np.float32,
        f"observations: {found.dtype} of shape {found.shape[1:]}; expected float32 of shape {shape[1:]}",
    )
    for t, observations in enumerate(found):
        for i, observation in enumerate(observations):
            expect(
                observation in space,
                f"observation of step {t}, episode {i}: {observation}; expected one within {space}",
            )
    for field, dtype in (("rewards", np.float64), ("terminated", bool), ("truncated", bool)):
        expect(record[field].dtype == dtype, f"{field}: {record[field].dtype}; expected {np.dtype(dtype)}")
    for t, i in np.argwhere(~np.isfinite(record["rewards"]))[:1]:
        raise ContractError(f"reward of step {t}, episode {i}: {record['rewards'][t, i]}; expected a finite number")
    for field, values in record.items():
        expect(values.shape[1:2] == (5,), f"{field}: shape {values.shape[1:]} for 5 episodes; expected [N, ...]")


def repeatable(subject: Subject) -> None:
    """The same tasks, seeds and actions give the same episodes."""
    env, tasks, actions = subject.episodes(4)
    first = roll(env, keys(4), tasks, actions)
    roll(env, keys(4, run=1), tasks[::-1], actions[:3])  # leaves no trace
    expect_same(roll(env, keys(4), tasks, actions), first, "played again")
    expect_same(roll(subject.make(4), keys(4), tasks, actions), first, "played by a new environment")


def independent(subject: Subject) -> None:
    """An episode does not depend on its neighbours."""
    env, tasks, actions = subject.episodes(7)
    together = roll(env, keys(7), tasks, actions)
    lone = subject.make(1)
    for i, key in enumerate(keys(7)):
        alone = roll(lone, [key], [tasks[i]], actions[:, i : i + 1])
        beside = {field: values[:, i : i + 1] for field, values in together.items()}
        expect_same(beside, alone, f"episode {i} of 7 beside the others, compared with alone")


def tasks_matter(subject: Subject) -> None:
    """The task that is set decides the episode."""

    def alike(*values: np.ndarray) -> bool:
        return all((each == each[0]).all() for each in values)

    num_tasks, rng = 16, np.random.default_rng(6)
    env = subject.make(num_tasks)
    tasks = draw_tasks(subject.name, env, num_tasks, "train", rng)
    env.set_tasks(tasks)
    steps = episodes = 0
    while steps < STEPS_TO_TELL_TASKS_APART:
        episodes += 1
        observations, _ = env.reset(seed=keys(1, run=episodes) * num_tasks)
        if not alike(observations):
            return
        for action in subject.draw_actions(env, env.horizon, rng)[:, :1]:
            observations, rewards, terminated, truncated, infos = env.step(np.repeat(action, num_tasks, axis=0))
            if not alike(observations, rewards, terminated, truncated, *infos.values()):
                return
            steps += 1
            if (terminated | truncated).all():
                break
    raise ContractError(
        f"{num_tasks} tasks, the first of them {tasks[0]}, gave the same observations, rewards, ends and infos "
        f"in each of {episodes} episodes of random actions; expected differences"
    )


def ends(subject: Subject) -> None:
    """An episode ends by the horizon, and stays ended."""
    env, tasks, actions = subject.episodes(3, num_steps=subject.make(1).horizon + 3)
    record = roll(env, keys(3), tasks, actions)
    terminated, truncated, horizon = record["terminated"], record["truncated"], env.horizon
    expect(not (terminated & truncated).any(), "an episode both terminated and truncated; expected one of them")
    ended = terminated | truncated
    expect(ended[horizon - 1].all(), f"an episode continues after step {horizon}; expected an end by the horizon")
    # A user's environment may truncate by itself.
    early = truncated[: horizon - 1].any() and ":" not in subject.name
    expect(not early, "an episode was truncated early; expected truncation at the horizon alone")
    for i in range(3):
        end = int(ended[:, i].argmax())
        for field in ("observations", "terminated", "truncated"):
            after = record[field][1:] if field == "observations" else record[field]
            expect(
                (after[end:, i] == after[end, i]).all(),
                f"{field} of episode {i} changed after its end in step {end}; expected them to stay",
            )
        expect(
            (record["rewards"][end + 1 :, i] == 0.0).all(),
            f"episode {i} earned something after its end in step {end}; expected 0",
        )


def restarts(subject: Subject) -> None:
    """An episode can be restarted alone, by options={"reset_mask": …}."""
    env, tasks, actions = subject.episodes(3)
    alone = roll(subject.make(1), keys(1, run=9), [tasks[1]], actions[5:, 1:2])
    undisturbed = roll(subject.make(3), keys(3), tasks, actions)
    roll(env, keys(3), tasks, actions[:5])
    restarted, _ = env.reset(seed=keys(1, run=9) * 3, options={"reset_mask": np.array([False, True, False])})
    found = {"observations": [restarted], "rewards": [], "terminated": [], "truncated": []}
    for action in actions[5:]:
        for field, values in zip(found, env.step(action)[:4], strict=True):
            found[field].append(values)
    for field, values in found.items():
        values, others = np.stack(values), [0, 2]
        expect_same({field: values[:, 1:2]}, {field: alone[field]}, "restarted, compared with alone")
        expect_same(
            {field: values[:, others]},
            {field: undisturbed[field][5:, others]},
            "beside one that was restarted, compared with undisturbed",
        )


def ownership(subject: Subject) -> None:
    """What reset and step returned stays as it was returned, and tasks and actions as they were handed over."""
    env, tasks, actions = subject.episodes(2)
    handed = copy.deepcopy(tasks), actions.copy()
    env.set_tasks(tasks)
    returned = [("observations of reset", env.reset(seed=keys(2))[0])]
    copies = [returned[0][1].copy()]
    for t, action in enumerate(actions[:6]):
        *arrays, infos = env.step(action)
        fields = dict(zip(("observations", "rewards", "terminated", "truncated"), arrays, strict=True)) | infos
        returned += [(f"{field} of step {t}", array) for field, array in fields.items()]
        copies += [array.copy() for array in fields.values()]
    for (what, array), before in zip(returned, copies, strict=True):
        expect((array == before).all(), f"{what}: a later step changed it; expected an array that the caller may keep")
    expect(tasks == handed[0], f"tasks {handed[0]}: now they are {tasks}; expected changes of a copy alone")
    expect((actions == handed[1]).all(), "actions: a step changed them; expected changes of a copy alone")


def seeds_in_sequence(subject: Subject) -> None:
    """One seed s stands for s, s + 1, …"""
    env, tasks, actions = subject.episodes(3)
    expected = roll(subject.make(3), [40, 41, 42], tasks, actions)
    expect_same(roll(env, 40, tasks, actions), expected, "seed=40, compared with seed=[40, 41, 42]")


def streams_go_on(subject: Subject) -> None:
    """Without a seed, reset continues the present streams."""
    records = []
    for _ in range(2):
        env, tasks, actions = subject.episodes(2)
        roll(env, keys(2), tasks, actions)
        records.append(roll(env, None, tasks, actions))
    expect_same(records[0], records[1], "the second episodes after a seed")


def gymnasium_checks(subject: Subject) -> None:
    """Gymnasium's own checks pass, where there is an environment of one episode; a seed decides all of a fresh one."""
    if gymnasium.spec(subject.name.rpartition(":")[2]).entry_point is None:
        return
    for check in (check_reset_seed_determinism, check_step_determinism, _check_env):
        env = gymnasium.make(subject.name, **subject.options)
        if ":" in subject.name:
            sample, assign = (env.get_wrapper_attr(method) for method in ("sample_tasks", "set_tasks"))
            assign(sample(1, "train", np.random.default_rng(7)))
        check(env.unwrapped)
        # Gymnasium's wrappers check a first step, too.
        env.reset(seed=1)
        env.step(env.action_space.sample())
        env.close()


def _check_env(env: gymnasium.Env) -> None:
    check_env(env, skip_render_check=True)


POINTS = (
    tasks_are_data, declared, repeatable, independent, tasks_matter, ends, restarts, ownership, seeds_in_sequence,
    streams_go_on, gymnasium_checks,
)  # fmt: skip
