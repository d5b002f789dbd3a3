"""Films of evaluated episodes: the same task before and after each inner update, side by side, as mp4 and gif.

`check` says, before anything costs time, whether an environment can be filmed here; `record` films. What is seen is the
environment's own: the `Scene` of its pictures (rl/drawing.py).
"""

import importlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rl import envs, streams
from rl.errors import UserError
from rl.evaluation.task_choice import distinct
from rl.sampling.episodes import Episodes
from rl.sampling.jobs import WorkerSpec
from rl.sampling.rollout import StreamName


def check(config: Any, count: int) -> None:
    """Find out whether `count` episodes of a run can be filmed here.

    Raises:
        UserError: an environment without a scene, another number of tasks, no way to render or to encode.
    """
    if not 1 <= count <= config.test_tasks:
        raise UserError(f"--video: expected 1 to {config.test_tasks} episodes, one a task, got {count}")
    try:
        importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(f"--video: ffmpeg is missing ({error}); pip install -r rl/requirements.txt brings it") from None
    try:
        envs.scene(config.env_name)
    except UserError as error:
        raise UserError(f"--video: {error}") from None


def chosen(tasks: list[dict[str, Any]], count: int) -> list[int]:
    """The numbers of the tasks to film: those that `task_choice.distinct` chooses, then the others in order."""
    first = distinct(tasks)
    return (first + [task for task in range(len(tasks)) if task not in first])[:count]


def record(
    folder: Path,
    spec: WorkerSpec,
    tasks: list[dict[str, Any]],
    episodes: Sequence[Episodes],
    stream: StreamName,
    number: int,
) -> list[Path]:
    """Film the first episode of a task: the files `video-task<number>.mp4` and `.gif`.

    Args:
        folder: where the files go.
        spec: the `WorkerSpec` of the evaluation's workers.
        tasks: those of the evaluation.
        episodes: its U + 1 `Episodes`, a panel each.
        stream: the `StreamName` of its first task, before any update.
        number: of the task.
    """
    from rl.video import film, replay

    scene_class = envs.scene(spec.env_name)
    with (
        closing(envs.make(spec.env_name, 1, **spec.env_options, **scene_class.env_options)) as env,
        closing(scene_class(env)) as scene,
    ):
        panels, own = [], [part.tasks(number, number + 1) for part in episodes]
        scene.prepare(own)
        for updates, part in enumerate(own):
            place = (stream.seed, stream.iteration, stream.phase + updates, stream.first_task + number, 0)
            key = streams.key(*place, streams.ENVIRONMENT)
            panels.append(replay.panel(env, scene, tasks[number], part, key))
        words = [f"{spec.env_name}, task {number}", envs.task_label(spec.env_name, tasks[number])]
        title = ": ".join(filter(None, words))
        return film.write(folder / f"video-task{number}", title, panels, replay.shown(env.horizon))
