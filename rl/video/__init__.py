"""Films of evaluated episodes: the same task before and after each inner update, side by side, as mp4 and gif.

`check` tells, before anything costs time, whether there is something to film; `record` films.
"""

import importlib
from contextlib import closing

from rl import envs, streams
from rl.envs import META_WORLD
from rl.errors import UserError
from rl.evaluation.task_choice import distinct

_SCENES = {"2DNavigation-v0": "drawings:Plane", "CTgraphEnvGoalChange-v0": "drawings:Tree"}
_SCENES |= dict.fromkeys(("HalfCheetahDir-v1", "HalfCheetahVel-v1"), "robots:Robot")
_SCENES |= dict.fromkeys(("AntDir-v1", "AntVel-v1", "AntPos-v0"), "robots:Robot")
_SCENES |= dict.fromkeys(META_WORLD, "robots:Arm")


def check(config, count):
    """Find out whether `count` episodes of a run can be filmed here.

    Raises:
        UserError: an environment without pictures, another number of tasks, no way to render or to encode.
    """
    if not 1 <= count <= config.test_batch_size:
        raise UserError(f"--video: expected 1 to {config.test_batch_size} episodes, one a task, got {count}")
    if config.env_name not in _SCENES:
        raise UserError(f"--video: there are no pictures of {config.env_name}; expected 2D navigation, the CT-graph, "
                        "Half-Cheetah, Ant or Meta-World")  # fmt: skip
    try:
        importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(f"--video: ffmpeg is missing ({error}); pip install -r rl/requirements.txt brings it") from None
    if _SCENES[config.env_name].startswith("robots"):
        importlib.import_module("rl.video.opengl").choose()


def chosen(tasks, count):
    """The numbers of the tasks to film: those that `task_choice.distinct` chooses, then the others in order."""
    first = distinct(tasks)
    return (first + [task for task in range(len(tasks)) if task not in first])[:count]


def record(folder, spec, tasks, episodes, stream, number):
    """Film the first episode of a task: the files `video-task<number>.mp4` and `.gif`.

    Args:
        folder: where the files go.
        spec: the `WorkerSpec` of the evaluation's workers.
        tasks: those of the evaluation.
        episodes: its U + 1 `Episodes`, a panel each.
        stream: the `StreamName` of its first task, before any update.
        number: of the task.

    Returns:
        list of the two paths
    """
    from rl.video import film, replay

    module, _, name = _SCENES[spec.env_name].partition(":")
    with (
        closing(envs.make(spec.env_name, 1, **spec.env_options)) as env,
        closing(getattr(importlib.import_module(f"rl.video.{module}"), name)(env)) as scene,
    ):
        panels, own = [], [part.tasks(number, number + 1) for part in episodes]
        scene.prepare(own)
        for updates, part in enumerate(own):
            place = (stream.seed, stream.iteration, stream.phase + updates, stream.first_task + number, 0)
            key = streams.key(*place, streams.ENVIRONMENT)
            panels.append(replay.panel(env, scene, tasks[number], part, key))
        title = f"{spec.env_name}, task {number}: {film.described(tasks[number])}"
        return film.write(folder / f"video-task{number}", title, panels, replay.shown(env.horizon))
