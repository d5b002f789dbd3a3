"""Where the agent went, before and after each inner update, as the environment's own pictures show it."""

import functools
from pathlib import Path

from rl import envs
from rl.drawing import Recorded
from rl.envs.adapter import users_code
from rl.errors import UserError
from rl.evaluation import runs
from rl.evaluation.task_choice import distinct
from rl.plots import style
from rl.video import strip


def trajectories(
    folder: Path, output: Path, most_tasks: int | None = None, frame: style.Frame = style.OWN
) -> tuple[list[Path], list[str]]:
    """Draw an evaluation's recorded episodes: PNG and PDF, and CSV where the environment's picture has a table. Of an
    environment that has a scene alone, its views are drawn as a film strip.

    Args:
        folder: an evaluation.
        output: path of the files without suffix.
        most_tasks: how many tasks to show at most; default: as `task_choice.distinct` chooses.
        frame: title and size.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input, or an environment without such a picture.
    """
    evaluation = runs.read_evaluation(folder)
    name, tasks = evaluation.config.env_name, evaluation.tasks
    module = envs.pictures(name)
    draw = getattr(module, "trajectories", None)
    if draw is None and hasattr(module, "Scene"):
        draw = functools.partial(strip.trajectories, evaluation)
    if draw is None:
        raise UserError(f"{folder}: no picture of trajectories for {name}; docs/environments.md says how to add one")
    labels = [evaluation.label(number) for number in range(len(tasks))]
    chosen = distinct(tasks, most_tasks)
    recorded = Recorded(tasks, labels, chosen, evaluation.episodes, evaluation.environment_file)
    with users_code(name, f"{folder}: cannot be drawn as an evaluation of {name}"):
        picture = style.printed(draw)(recorded)
    if frame.size:
        picture.figure.set_size_inches(frame.size)
    if frame.title is not None:
        picture.figure.suptitle(frame.title, fontsize=8)
    if any(panel.get_legend_handles_labels()[1] for panel in picture.figure.axes):
        style.printed(style.legend_below)(picture.figure)
    files = style.save(picture.figure, output, frame.size)
    if picture.table is not None:
        files.append(style.save_table(output, *picture.table))
    updates = " and ".join(map(str, picture.updates)) or f"0 to {recorded.stages - 1}"
    return files, [f"{picture.caption}, after {updates} updates"]
