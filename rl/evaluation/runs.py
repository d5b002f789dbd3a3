"""Reading the folders that main.py and test.py write, and gathering them in groups."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rl import envs
from rl.config import UNGROUPED, Config, load_config
from rl.errors import UserError
from rl.evaluation.events import EVENTS, scalars
from rl.files import load_arrays, read_json, read_text

GATES = {"hard": "hard", "soft": "soft", "ste": "straight-through"}


@dataclass(frozen=True)
class Folder:
    """What a run's and an evaluation's folder share.

    Attributes:
        path: the folder.
        config: its `Config`.
    """

    path: Path
    config: Config

    @cached_property
    def environment(self) -> str:
        """The environment in words: its name, and what its configuration file makes of it."""
        return envs.describe(self.config.env_name, self.environment_file)

    @property
    def environment_file(self) -> Path | None:
        """The folder's copy of the environment's configuration file, where it has one."""
        return self.path / Path(self.config.env_config_path).name if self.config.env_config_path else None

    @property
    def method(self):
        """The method in words: plain CAVIA; neuromodulated CAVIA, hard gates; …"""
        base = "MAML" if self.config.maml else "CAVIA"
        if not self.config.neuromodulation:
            return f"plain {base}"
        bias = f", bias {self.config.nm_gate_bias:g}" if self.config.nm_gate_bias else ""
        return f"neuromodulated {base}, {GATES[self.config.nm_gate]} gates{bias}"

    @property
    def options(self):
        """Every option and the method: name -> value."""
        return {"method": self.method, **dataclasses.asdict(self.config)}


class Run(Folder):
    """A training run's log folder."""

    @cached_property
    def curves(self):
        """TensorBoard's scalars: tag -> (iterations [N] ascending, values [N]); a repeated iteration's last one."""
        points = {}
        for file in sorted(self.path.glob(EVENTS)):
            for tag, step, value in scalars(file):
                # tensorboardX's helpers write the blank of published tags as an underscore.
                points.setdefault(tag.replace(" ", "_"), {})[step] = value
        return {tag: (np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
                for tag, found in points.items()}  # fmt: skip

    def curve(self, tag):
        """One of the curves.

        Raises:
            UserError: the run has none of that name.
        """
        if tag not in self.curves:
            raise UserError(f"{self.path}: has no curve {tag}; it has: {', '.join(sorted(self.curves)) or 'none'}")
        return self.curves[tag]


class Evaluation(Folder):
    """An evaluation's folder."""

    @property
    def options(self):
        """As `Folder.options`, and what test.py alone can vary."""
        defaults = {"split": "test", "protocol": "paper", "modulation": "normal", "context": "normal"}
        return {**super().options, **{name: self.results.get(name, value) for name, value in defaults.items()}}

    @cached_property
    def results(self):
        """results.json."""
        return read_json(self.path / "results.json")

    @cached_property
    def tasks(self):
        """The tasks, a list of dicts."""
        path = self.file("tasks.json")
        try:
            tasks = json.loads(read_text(path, "the tasks of an evaluation"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: expected the tasks of an evaluation: {error}") from None
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise UserError(f"{path}: expected the tasks of an evaluation, a list of objects")
        return tasks

    @cached_property
    def returns(self):
        """The returns, [tasks, updates + 1, episodes]."""
        path = self.file("rewards.npy")
        rewards = load_arrays(path, "the rewards of an evaluation")
        if rewards.ndim != 4:
            raise UserError(
                f"{path}: expected rewards [tasks, steps, episodes, updates + 1], found {rewards.ndim} axes"
            )
        return np.moveaxis(rewards.sum(axis=1), 1, 2)

    @cached_property
    def episodes(self):
        """The recorded episodes: name -> array [tasks, steps, episodes, updates + 1, ...]."""
        return self._arrays("episodes.npz", ["observations", "actions", "mask"])

    @cached_property
    def probe(self):
        """The activations on the probe set, as `rl.evaluation.recordings.write_probe` defines them."""
        return self._arrays("probe.npz", ["observations", "tasks"])

    def label(self, number: int) -> str:
        """A task in a few words; its number where they would be many."""
        return envs.task_label(self.config.env_name, self.tasks[number]) or f"task {number}"

    def file(self, name):
        """The path of one of its files.

        Raises:
            UserError: there is none of that name.
        """
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; evaluate the policy again with this version of test.py")
        return path

    def _arrays(self, name, arrays):
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{self.path}: an evaluation without {name}; run test.py again with --activations above 0")
        return load_arrays(path, "a record of test.py", arrays)


def read_run(path):
    """The `Run` in a folder.

    Raises:
        UserError: the folder is no run's.
    """
    path = Path(path)
    if (path / "results.json").is_file():
        raise UserError(f"{path}: expected a training run's folder, found an evaluation")
    run = Run(path, _config(path, "a training run's log folder"))
    if not any(path.glob(EVENTS)):
        raise UserError(f"{path}: expected a training run's log folder, found no TensorBoard events in it")
    return run


def read_evaluation(path):
    """The `Evaluation` in a folder.

    Raises:
        UserError: the folder is no evaluation's.
    """
    path = Path(path)
    config = _config(path, "an evaluation's folder")
    if not (path / "results.json").is_file():
        raise UserError(f"{path}: expected an evaluation's folder, found no results.json in it (test.py writes it)")
    return Evaluation(path, config)


def _config(path, expected):
    if not path.is_dir():
        raise UserError(f"{path}: expected {expected}, found no such folder")
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: expected {expected}, found no config.json in it")
    return load_config(path / "config.json")[0]


def same_environment(folders):
    """The environment that all folders share.

    Raises:
        UserError: they do not.
    """
    first = folders[0]
    for other in folders[1:]:
        if other.environment != first.environment:
            raise UserError(
                f"{other.path}: is of {other.environment}, but {first.path} of {first.environment}; "
                "one picture shows one environment"
            )
    return first.environment


def grouped(folders, group_by):
    """Gather folders in groups of those that differ in nothing but the seed and what changes no result.

    Args:
        folders: list of `Folder`s of one environment.
        group_by: names of options (or "method") that tell groups apart, too, even where they change no result.

    Returns:
        dict label -> list of folders, in the order given; a label names what differs between the groups.

    Raises:
        UserError: an unknown name, or one seed twice in a group.
    """
    unknown = [name for name in group_by if name not in folders[0].options]
    if unknown:
        raise UserError(f"--group-by: unknown option {unknown[0]!r}; expected method or a name in config.json")
    groups = {}
    for folder in folders:
        chosen = tuple(
            (name, value) for name, value in folder.options.items() if name in group_by or name not in UNGROUPED
        )
        groups.setdefault(chosen, []).append(folder)
    for members in groups.values():
        seen = {}
        for member in members:
            other = seen.setdefault(member.config.seed, member)
            if other is not member:
                raise UserError(
                    f"{member.path}: has the seed {member.config.seed} of {other.path} in the same group; "
                    "a group has each seed once (--group-by tells groups apart)"
                )
    return {_label(key, groups): members for key, members in groups.items()}


def _label(key, groups):
    """The method, and the options in which groups of the same method differ, those left as they were unnamed."""
    options = dict(key)
    rivals = [rival for rival in map(dict, groups) if rival["method"] == options["method"]]
    words = [options["method"]]
    for name, value in options.items():
        if value not in ("normal", False) and any(rival[name] != value for rival in rivals):
            words.append(name.replace("_", " ") + ("" if value is True else f" {value}"))
    return ", ".join(words)
