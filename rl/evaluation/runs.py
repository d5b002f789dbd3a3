"""Reading the folders that main.py and test.py write, and gathering them in groups."""

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int, Integer, Shaped

from rl import envs
from rl.config import UNGROUPED, Config, load_config
from rl.errors import UserError
from rl.files import check_arrays, load_arrays, printable, read_json, read_text, sha256

PROGRESS = "progress.csv"
EVENTS = "events.out.tfevents.*"  # all that runs of earlier versions have of their curves
# What test.py alone can vary: name in results.json -> what it was in evaluations that do not say.
CONDITIONS = {"split": "test", "protocol": "paper", "modulation": "normal", "context": "normal"}
# An evaluation's arrays. Axes: K tasks, T steps, E episodes, U updates + 1, O entries of an observation; of the probe,
# D tasks and N observations.
REWARDS = {"": Float[np.ndarray, "K T E U"]}
EPISODES = {
    "observations": Float[np.ndarray, "K T E U O"],
    "actions": (Float[np.ndarray, "K T E U *A"], Int[np.ndarray, "K T E U *A"]),
    "mask": Float[np.ndarray, "K T E U"],
    "info.*": (Float[np.ndarray, "K T E U"], Integer[np.ndarray, "K T E U"], Bool[np.ndarray, "K T E U"]),
}
PROBE = {
    "observations": Float32[np.ndarray, "N O"],
    "tasks": Int[np.ndarray, " D"],
    "layer1.output": Float32[np.ndarray, "D U N _"],
    "*.*": Float32[np.ndarray, "D U N _"],
}


@dataclass(frozen=True)
class Folder:
    """What a run's and an evaluation's folder share.

    Attributes:
        path: the folder.
        config: its `Config`.
        seed: of the training run; an evaluation may have had another one.
    """

    path: Path
    config: Config
    seed: int

    @cached_property
    def environment(self) -> str:
        """The environment in words: its name, and what its configuration file makes of it."""
        return printable(envs.describe(self.config.env_name, self.environment_file))

    @property
    def environment_file(self) -> Path | None:
        """The folder's copy of the environment's configuration file, where it has one."""
        return self.path / Path(self.config.env_config_path).name if self.config.env_config_path else None

    @property
    def _digest(self) -> str:
        """What tells apart environments that `environment` calls the same."""
        path = self.environment_file
        return sha256(path, "an environment's file")[:8] if path and path.is_file() else "none"

    @property
    def method(self) -> str:
        """The method in words: plain CAVIA; neuromodulated CAVIA, hard gates; …"""
        from rl.policies.elementwise import GATES  # torch: a second that most of plot.py does without

        base = "MAML" if self.config.maml else "CAVIA"
        if not self.config.neuromodulation:
            return f"plain {base}"
        bias = f", bias {self.config.nm_gate_bias:g}" if self.config.nm_gate_bias else ""
        return f"neuromodulated {base}, {GATES[self.config.nm_gate].label} gates{bias}"

    @property
    def options(self) -> dict[str, Any]:
        """Every option, the method, and of the environment's configuration file the beginning of its SHA-256: name ->
        value.
        """
        options = {"method": self.method, **dataclasses.asdict(self.config), "environment file": self._digest}
        return {name: printable(value) if isinstance(value, str) else value for name, value in options.items()}


class Run(Folder):
    """A training run's log folder."""

    @cached_property
    def progress(self) -> pd.DataFrame:
        """progress.csv: a row an iteration, a column a tag, NaN where an iteration did not measure it.

        Raises:
            UserError: it is something else.
        """
        path, expected = self.path / PROGRESS, "a run's curves"
        text = read_text(path, expected)
        whole = text[: text.rfind("\n") + 1]  # a power cut may leave half a line
        try:
            table = pd.read_csv(io.StringIO(whole), index_col="iteration", dtype=np.float64)
            if not ((table.index >= 0) & (table.index < 2**53)).all() or not (np.diff(table.index) > 0).all():
                raise ValueError("the iterations are none, or do not increase")
            table.index = table.index.astype(np.int64)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: expected {expected}, a CSV file: {str(error).strip()}") from None
        return table

    def curve(self, tag: str) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """The iterations that measured a tag, and its values.

        Raises:
            UserError: none did.
        """
        curves = self.progress.dropna(axis="columns", how="all")
        if tag not in curves:
            raise UserError(f"{self.path}: has no curve {tag}; it has: {', '.join(sorted(map(str, curves))) or 'none'}")
        values = curves[tag].dropna()
        if not np.isfinite(values).all():
            raise UserError(f"{self.path / PROGRESS}: {tag}: expected finite numbers, found others")
        return values.index.to_numpy(), values.to_numpy()


class Evaluation(Folder):
    """An evaluation's folder."""

    @property
    def options(self) -> dict[str, Any]:
        """As `Folder.options`, and what test.py alone can vary."""
        conditions = {name: self.results.get(name, value) for name, value in CONDITIONS.items()}
        return {**super().options, "num_test_tasks": self.config.test_tasks, **conditions}

    @cached_property
    def results(self) -> dict[str, Any]:
        """results.json.

        Raises:
            UserError: what decides groups is no word.
        """
        results = read_json(path := self.path / "results.json")
        for name in CONDITIONS.keys() & results.keys():
            if not isinstance(results[name], str):
                raise UserError(f"{path}: {name}: expected a word, found {results[name]!r:.40}")
        return results

    @cached_property
    def tasks(self) -> list[dict[str, Any]]:
        """The evaluated tasks."""
        return read_tasks(self.file("tasks.json"))

    @property
    def returns(self) -> Float[np.ndarray, "K updates E"]:
        """The returns after 0, 1, … updates."""
        return np.moveaxis(self.rewards.sum(axis=1), 1, 2)

    @cached_property
    def rewards(self) -> Float[np.ndarray, "K T E updates"]:
        """The rewards of the episodes that count, after 0, 1, … updates."""
        stages, path = self.config.num_test_steps + 1, self.file("rewards.npy")
        return load_arrays(path, "the rewards of an evaluation", REWARDS, U=stages)[""]

    @cached_property
    def success(self) -> Float[np.ndarray, "K updates"] | None:
        """The success rate of each task after 0, 1, … updates; None where the environment told of none.

        Raises:
            UserError: results.json has something else in its place.
        """
        if "success_per_task" not in self.results:
            return None
        place = f"{self.path / 'results.json'}: success_per_task"
        try:
            found = np.array(self.results["success_per_task"], float)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{place}: expected rates after each number of updates, task by task: {error}") from None
        tasks, updates = self.returns.shape[:2]
        check_arrays(place, {"": found}, {"": Float[np.ndarray, f"{updates} {tasks}"]})
        if not ((found >= 0) & (found <= 1)).all():
            raise UserError(f"{place}: expected rates from 0 to 1, found others")
        return found.T

    @cached_property
    def episodes(self) -> dict[str, Shaped[np.ndarray, "K T E updates *"]]:
        """The recorded episodes: name -> array [tasks, steps, episodes, updates + 1, ...]."""
        return self._arrays("episodes.npz", EPISODES, K=len(self.tasks))

    @cached_property
    def probe(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The activations on the probe set, as `rl.evaluation.recordings.write` defines them."""
        found = self._arrays("probe.npz", PROBE, U=self.config.num_test_steps + 1)
        if not ((found["tasks"] >= 0) & (found["tasks"] < len(self.tasks))).all():
            raise UserError(f"{self.path / 'probe.npz'}: tasks: expected numbers of the {len(self.tasks)} tasks")
        return found

    def label(self, number: int | np.integer) -> str:
        """A task in a few words; its number where they would be many."""
        return envs.task_label(self.config.env_name, self.tasks[number]) or f"task {number}"

    def file(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            UserError: there is none of that name.
        """
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; evaluate the policy again with this version of test.py")
        return path

    def _arrays(self, name: str, schema: dict[str, Any], **sizes: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{self.path}: an evaluation without {name}; run test.py again with --activations above 0")
        return load_arrays(path, "a record of test.py", schema, **sizes)


def read_run(path: Path | str) -> Run:
    """The run in a folder.

    Raises:
        UserError: the folder is no run's.
    """
    path, expected = Path(path), "a training run's log folder"
    if (path / "results.json").is_file():
        raise UserError(f"{path}: expected {expected}, found an evaluation")
    run = Run(path, *_config(path, expected))
    if not (path / PROGRESS).is_file():
        found = "a run of an earlier version, which wrote none" if any(path.glob(EVENTS)) else "none"
        raise UserError(f"{path}: expected {expected} with a {PROGRESS}, found {found}")
    return run


def read_evaluation(path: Path | str) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        UserError: the folder is no evaluation's.
    """
    path, expected = Path(path), "an evaluation's folder"
    config, seed = _config(path, expected)
    if not (path / "results.json").is_file():
        raise UserError(f"{path}: expected {expected}, found no results.json in it (test.py writes it)")
    return Evaluation(path, config, seed)


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """A list of tasks, as an evaluation's tasks.json holds them.

    Raises:
        UserError: the file holds something else.
    """
    try:
        tasks = json.loads(read_text(path, "a list of tasks"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a list of tasks: {error}") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: expected a list of tasks, JSON objects")
    return tasks


def _config(path: Path, expected: str) -> tuple[Config, int]:
    if not path.is_dir():
        raise UserError(f"{path}: expected {expected}, found no such folder")
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: expected {expected}, found no config.json in it")
    config, description = load_config(path / "config.json")
    return config, description["run_seed"]


def same_environment(folders: Sequence[Folder]) -> str:
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


SomeFolder = TypeVar("SomeFolder", bound=Folder)


def grouped(folders: Sequence[SomeFolder], group_by: Sequence[str]) -> dict[str, list[SomeFolder]]:
    """Groups of folders that differ in nothing but the seed and what changes no result, in the order given.

    Args:
        folders: of one environment.
        group_by: names of options by which folders are separated even where they change no result.

    Returns:
        label -> folders; a label is the method and the options in which groups of that method differ.

    Raises:
        UserError: an unknown name, or one seed twice in a group.
    """
    options = pd.DataFrame([folder.options for folder in folders], dtype=object)
    for name in group_by:
        if name not in options:
            raise UserError(f"--group-by: unknown option {name!r}; expected method or a name in config.json")
    options = options.drop(columns=set(UNGROUPED) - set(group_by), errors="ignore")
    groups: dict[str, dict[int, SomeFolder]] = {}
    for folder, (_, own) in zip(folders, options.iterrows(), strict=True):
        rivals = options[options["method"] == own["method"]]
        differing = own[rivals.nunique(dropna=False) > 1]
        # What an option switches off, or leaves as it was, needs no name.
        words = [name.replace("_", " ") + ("" if value is True else f" {in_short(value)}")
                 for name, value in differing.items() if value != "normal" and value is not False]  # fmt: skip
        members = groups.setdefault(", ".join([own["method"], *words]), {})
        other = members.setdefault(folder.seed, folder)
        if other is not folder:
            raise UserError(
                f"{folder.path}: is of a run with seed {folder.seed}, as {other.path} in the same group; "
                "a group has each seed once (--group-by separates groups)"
            )
    return {label: list(members.values()) for label, members in groups.items()}


def in_short(value: Any) -> str:
    """An option's value: of a float as many digits as people write."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def names(found: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """What groups are to be called: label -> the user's own, given in the order of the groups, or the same.

    Raises:
        UserError: more or fewer labels than groups, or one twice.
    """
    distinct = list(dict.fromkeys(found))
    if labels and (len(labels) != len(distinct) or len(set(labels)) < len(labels)):
        raise UserError(f"--label: expected a name for each of {len(distinct)} groups ({'; '.join(distinct)}), got "
                        f"{'; '.join(labels)}")  # fmt: skip
    return dict(zip(distinct, labels or distinct, strict=True))
