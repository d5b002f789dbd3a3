"""Film strips: the picture of trajectories of an environment that can be seen and has no such picture of its own."""

from contextlib import closing

import numpy as np

from rl import drawing, envs, streams
from rl.drawing import Picture, Recorded
from rl.errors import UserError
from rl.evaluation.runs import Evaluation
from rl.sampling.episodes import Episodes
from rl.video import replay

MOMENTS = 5  # views of an episode


def trajectories(evaluation: Evaluation, recorded: Recorded) -> Picture:
    """Of each task the first episode before adaptation and after the last update, a row each, at five moments.

    Raises:
        UserError: the environment cannot be seen here, or no longer does what was recorded.
    """
    config, last = evaluation.config, recorded.stages - 1
    shown_updates = list(dict.fromkeys((0, last)))
    scene_class = envs.scene(config.env_name)
    options = envs.options(config.env_name, evaluation.environment_file, evaluation.seed, config.horizon or None)
    rows = [(task, updates) for task in recorded.chosen for updates in shown_updates]
    figure, axes = drawing.task_panels(len(rows), MOMENTS, width=1.4, height=1.15)
    with (
        closing(envs.make(config.env_name, 1, **options, **scene_class.env_options)) as env,
        closing(scene_class(env)) as scene,
    ):
        for (task, updates), panels in zip(rows, axes, strict=True):
            episode = first_episode(evaluation, recorded, task, updates)
            scene.prepare([first_episode(evaluation, recorded, task, stage) for stage in range(last + 1)])
            key = streams.key(config.seed, 0, streams.EVALUATE + updates, task, 0, streams.ENVIRONMENT)
            try:
                seen = replay.panel(env, scene, recorded.tasks[task], episode, key)
            except RuntimeError as error:
                raise UserError(f"{evaluation.path}: {error}") from None
            shown = np.linspace(0, len(seen.views) - 1, MOMENTS).round().astype(int)
            for panel, number in zip(panels, shown, strict=True):
                view = seen.views[number]
                panel.imshow(view.picture)
                panel.set_axis_off()
                panel.set_title(f"step {view.step}" + f": {view.remark}" * bool(view.remark), fontsize=6)
            label = f"{recorded.labels[task]}\n{drawing.update_label(updates)}"
            panels[0].text(-0.05, 0.5, label, fontsize=6, ha="right", va="center", transform=panels[0].transAxes)
    figure.supxlabel(scene_class.legend, fontsize=6)
    return Picture(figure, f"{recorded.shown}, the first episode of each at five moments", updates=shown_updates)


def first_episode(evaluation: Evaluation, recorded: Recorded, task: int, updates: int) -> Episodes:
    """The first recorded episode of a task after some updates."""
    observations, actions, mask = (
        recorded.episodes[name][task, :, 0, updates][None, :, None] for name in ("observations", "actions", "mask")
    )
    return Episodes(observations, actions, evaluation.rewards[task, :, 0, updates][None, :, None], mask)
