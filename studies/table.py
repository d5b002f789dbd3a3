"""The table of experiments, read and checked: `experiments.toml` -> the command line of every run."""

import json
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rl.errors import UserError
from rl.evaluation.comparisons import FEWEST

TABLE = Path(__file__).parent / "experiments.toml"
ALL = "all"


class Experiment(NamedTuple):
    """A row."""

    name: str
    title: str
    options: str  # of main.py, shared by all methods
    nm_size: int  # what {nm_size} of a method's options stands for
    iterations: int
    paper_iterations: int  # 0: not in the paper
    seeds: list[int]
    methods: list[str]
    baseline: str  # the method that others are compared with
    proposed: str  # the method that the paper proposes here, whatever is best
    paper: str  # the paper's claim or, of a row that is not the paper's, what it asks: a sentence
    checks: bool  # whether representations and interventions are evaluated, too
    keep_policy: int  # of how many seeds, the first ones, policies are kept in results/ (under 20 MB in all)
    overnight: bool  # whether two cores run it, with the others that are so, in some nights; else it is run when named
    tasks: int = 200  # test tasks of the evaluation
    test_episodes: int = 0  # of a test task, if not as --test-batch-size says: all methods must adapt from as many
    halved: bool = False  # whether the last policy is also evaluated with --halve-test-lr
    note: str = ""  # how the runs kept in results/ were made, if not as the table says
    best_checkpoint: bool = False  # whether the paper's figures are of the best checkpoint: then both are shown
    milestone: float = 0  # a return after the update: how soon it is reached is shown; 0: nothing is
    pace: dict[str, float] | None = None  # method -> seconds an iteration on two idle cores, where that was measured
    save_freq: int = 1_000_000  # as main.py's
    exact: bool = False  # whether the chances of its policies are computed (exact.py), not evaluated on test tasks


class Method(NamedTuple):
    """A column: its title and its options, in which {nm_size} stands for the experiment's."""

    name: str
    title: str
    options: str


class Table(NamedTuple):
    """Name -> `Experiment`, name -> `Method`, in the order of the file."""

    experiments: dict[str, Experiment]
    methods: dict[str, Method]

    def chosen(self, names: Sequence[str]) -> list[Experiment]:
        """Some experiments by name; without names those that are overnight; with `all` every one.

        Raises:
            UserError: an unknown name.
        """
        for name in names:
            if name not in {ALL, *self.experiments}:
                raise UserError(f"unknown experiment {name!r}; known: {ALL}, {', '.join(self.experiments)}")
        rows = self.experiments.values()
        return [row for row in rows if row.name in names or ALL in names or (row.overnight and not names)]

    def row(self, experiment: str, method: str) -> Experiment:
        """An experiment.

        Raises:
            UserError: there is none of this name, or no such method.
        """
        for name, known in ((experiment, self.experiments), (method, self.methods)):
            if name not in known:
                raise UserError(f"{TABLE}: has no {name!r}; expected one of {', '.join(known)}")
        return self.experiments[experiment]

    def compared(self) -> list[Experiment]:
        """The evaluated rows with a page of their own: those that have enough seeds for a comparison. The others are in
        the appendix.
        """
        return [row for row in self.experiments.values() if len(row.seeds) >= FEWEST and not row.exact]

    def options(self, experiment: str, method: str) -> list[str]:
        """main.py's options of a row and a column, without the seed, as words."""
        row = self.experiments[experiment]
        added = self.methods[method].options.format(nm_size=row.nm_size)
        return [*shlex.split(row.options), "--num-batches", str(row.iterations), *shlex.split(added)]

    def check(self, row: Experiment, results: Path, runs: Path | None = None) -> None:
        """Compare the folders of results and of runs with the table, before anything is made of them.

        Raises:
            UserError: a run was made, or begun, with other options than the table has now.
        """
        for method in row.methods:
            wanted = " ".join(self.options(row.name, method))
            for seed in row.seeds:
                found = [(Path(results, row.name, method, f"{seed}.json"), _options)]
                if runs:
                    found.append((Path(runs, row.name, method, str(seed), "options"), Path.read_text))
                for path, read in found:
                    if path.is_file() and read(path).strip() != wanted:
                        raise UserError(
                            f"{path}: is of a run with other options than the table's; move it away, or give the "
                            f"method or experiment another name; expected {wanted}"
                        )


def read(path: Path = TABLE) -> Table:
    """The table of a file.

    Raises:
        UserError: the file cannot be read, a key is missing or unknown, a method is not declared.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a TOML file: {error}") from None
    methods = {name: _made(Method, name, entry, path) for name, entry in content.get("methods", {}).items()}
    rows = content.get("experiments", {})
    for number, (name, entry) in enumerate(rows.items()):
        like = entry.pop("like", None)
        if like not in {None, *list(rows)[:number]}:
            raise UserError(f"{path}: {name}: like {like!r}: expected the name of an experiment above it")
        rows[name] = rows.get(like, {}) | entry
    experiments = {name: _made(Experiment, name, entry, path) for name, entry in rows.items()}
    for experiment in experiments.values():
        for method in experiment.methods:
            if method not in methods:
                raise UserError(f"{path}: experiment {experiment.name}: no method {method!r} is declared")
    return Table(experiments, methods)


def _options(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["options"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: expected what studies/evaluate.py writes, found something else") from None


def _made(kind: type[NamedTuple], name: str, entry: dict[str, Any], path: Path) -> Any:
    expected, optional = set(kind._fields) - {"name"}, set(kind._field_defaults)
    if wrong := sorted(set(entry) ^ expected - (optional - set(entry))):
        raise UserError(f"{path}: {name}: missing or unknown keys: {', '.join(wrong)}")
    return kind(name=name, **entry)
