"""A small family of environments as docs/environments.md says to write one: dynamics, a configuration file, pictures.

`installed(folder)` makes the package `corridor` there and puts the folder on the path, which worker processes inherit:
then it is `corridor:Corridor-v0`, a user's own, and with `ROW` in the registry a built-in one.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium

ID, NAME, ROW = "Corridor-v0", "corridor:Corridor-v0", "corridor.environment:Corridor"

FILES = {
    "__init__.py": """
import gymnasium

gymnasium.register("Corridor-v0", vector_entry_point="corridor.environment:Corridor")
""",
    "environment.py": '''
import json
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl.envs.base import TaskVectorEnv
from rl.errors import UserError


class Corridor(TaskVectorEnv):
    """N walkers in a corridor of cells, who start in the middle; a task is {"cell": i}, and reaching it earns 1."""

    pictures = "corridor.pictures"

    def __init__(self, num_envs, length):
        observations = Box(0.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, observations, Discrete(2), horizon=2 * length)
        self.length = length
        self.cells, self.goals = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    @classmethod
    def read_options(cls, name, config_path=None, seed=0, horizon=None):
        if config_path is None:
            raise UserError(f"environment {name} needs a configuration file: --env-config-path")
        content = json.loads(Path(config_path).read_text(encoding="utf-8"))
        return super().read_options(name, horizon=horizon) | {"length": content["length"]}

    @classmethod
    def describe(cls, name, config_path):
        return f"{name} of {cls.read_options(name, config_path)['length']} cells"

    @classmethod
    def task_label(cls, task):
        return f"to cell {task['cell']}"

    @classmethod
    def success(cls, rewards):
        return (rewards > 0).any(axis=1)

    def sample_tasks(self, num_tasks, split, rng):
        return [{"cell": cell} for cell in rng.integers(self.length, size=num_tasks).tolist()]

    def assign(self, tasks):
        self.goals = np.array([task["cell"] for task in tasks])

    def begin(self, which):
        self.cells[which] = self.length // 2

    def advance(self, actions):
        moved = np.clip(self.cells + 2 * actions - 1, 0, self.length - 1)
        self.cells = np.where(self.running, moved, self.cells)
        arrived = self.cells == self.goals
        return arrived.astype(np.float64), arrived, {"cell": self.cells.copy()}

    def observe(self):
        return (self.cells[:, None] / self.length).astype(np.float32)
''',
    "pictures.py": '''
from rl import drawing


def trajectories(recorded):
    """Visited cells against time, a panel a task; the table: the cell after the last step of each episode."""
    figure, axes = drawing.grid(len(recorded.chosen), sharex=True, sharey=True)
    cells, rows = recorded.episodes["info.cell"], []
    for panel, task in zip(axes, recorded.chosen, strict=True):
        for updates, colour in enumerate(drawing.shades(recorded.stages)):
            panel.plot(cells[task, :, 0, updates], color=colour, label=drawing.update_label(updates))
            rows.append((task, updates, int(cells[task, -1, 0, updates])))
        panel.set_title(recorded.labels[task])
    drawing.label_edges(axes, "step", "cell")
    caption = f"{recorded.shown}, the first episode of each"
    return drawing.Picture(figure, caption, (("task", "updates", "last_cell"), rows))


class Scene(drawing.Scene):
    def view(self):
        sheet = drawing.Sheet((self.env.length / 2, 0), (drawing.WIDTH / (self.env.length + 1),) * 2)
        sheet.star((self.env.goals[0], 0), drawing.rgb(drawing.VERMILION), 12)
        sheet.dot((self.env.cells[0], 0), drawing.rgb(drawing.BLUE), 8)
        return sheet.finished(), f"cell {self.env.cells[0]}"
''',
    "short.json": json.dumps({"length": 5}),
}


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Path]:
    """Write the package into a folder that is put on the path meanwhile: the path of its configuration file."""
    package = folder / "corridor"
    package.mkdir()
    for name, content in FILES.items():
        (package / name).write_text(content.lstrip(), encoding="utf-8")
    sys.path.append(str(folder))
    try:
        yield package / "short.json"
    finally:
        sys.path.remove(str(folder))
        gymnasium.registry.pop(ID, None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "corridor"]:
            del sys.modules[name]
