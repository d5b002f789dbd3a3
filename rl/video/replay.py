"""Recorded episodes are run again, so that what is seen is what was evaluated."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from rl.envs.base import TaskVectorEnv

MOST_FRAMES = 100  # of an episode


class View(NamedTuple):
    """What a panel shows at one moment: a picture, a remark on the state, the return so far; after how many steps."""

    picture: UInt8[np.ndarray, "H W 3"]
    remark: str
    earned: float
    step: int


class Panel(NamedTuple):
    """An episode: its views, at the moments `shown`, the last one at its end; its return; the steps that it took."""

    views: list[View]
    total: float
    steps: int


def shown(horizon: int) -> Int[np.ndarray, "frames"]:
    """After how many steps a picture is made, from 0 to `horizon`, at most 100 of them."""
    return np.linspace(0, horizon, min(horizon + 1, MOST_FRAMES)).round().astype(int)


def panel(env: TaskVectorEnv, scene: Any, task: dict[str, Any], episodes: Any, key: int) -> Panel:
    """Run the first episode of a task again and look at it.

    Args:
        env: of a single episode, of the class that sampled.
        scene: `rl.drawing.Scene` of this environment.
        task: the task.
        episodes: `Episodes` of this task alone.
        key: of the episode's random stream in the environment.

    Raises:
        RuntimeError: an observation or reward differs from the recorded one, in any bit.
    """
    steps = int(episodes.mask[0, :, 0].sum())
    moments = {*shown(env.horizon).tolist(), steps}
    env.set_tasks([task])
    observations, _ = env.reset(seed=[key])
    scene.begin(task)

    def look(step: int) -> View:
        picture, remark = scene.view()
        return View(picture, remark, earned, step)

    earned = 0.0
    views = [look(0)]
    for t in range(steps):
        action, reward = episodes.actions[0, t, 0], episodes.rewards[0, t, 0]
        seen = np.array_equal(observations[0], episodes.observations[0, t, 0])
        observations, rewards, *_ = env.step(action[None])
        if not seen or rewards[0] != reward:
            raise RuntimeError(
                f"video of task {task}: the episode, run again, differs from the recorded one in step {t}"
            )
        earned += reward
        scene.follow()
        if t + 1 in moments:
            views.append(look(t + 1))
    return Panel(views, earned, steps)
