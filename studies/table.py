"""The table of experiments, read and checked: `experiments.toml` -> the command line of every run."""

import json
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rl.errors import UserError

TABLE = Path(__file__).parent / "experiments.toml"
ALL = "all"


class TableError(UserError):
    """The table, or what is asked of it, is wrong."""


class Experiment(NamedTuple):
    """A row.

    Attributes:
        name, title: how files and people call it.
        options: main.py's, shared by all methods; {nm_size} of a method's options is `nm_size`.
        iterations, paper_iterations: run here, and in the paper (0: not in the paper).
        seeds, methods: what is run.
        baseline: the method that others are compared with.
        proposed: the method that the paper proposes here, whatever is best.
        paper: what the paper says, a sentence.
        checks: whether representations and interventions are evaluated, too.
        keep_policy: whether the first seed's policies are kept in results/.
        overnight: whether two cores run it in some nights, with the others that are so; else it is run when named.
        note: how the runs kept in results/ were made, where that is not as the table says.
    """

    name: str
    title: str
    options: str
    nm_size: int
    iterations: int
    paper_iterations: int
    seeds: list
    methods: list
    baseline: str
    proposed: str
    paper: str
    checks: bool
    keep_policy: bool
    overnight: bool
    note: str = ""


class Method(NamedTuple):
    """A column: its title and its options, in which {nm_size} stands for the experiment's."""

    name: str
    title: str
    options: str


class Table(NamedTuple):
    """Name -> `Experiment`, name -> `Method`, in the order of the file."""

    experiments: dict
    methods: dict

    def chosen(self, names):
        """Some experiments by name; where none is named, those that are overnight; of `all` every one.

        Raises:
            TableError: an unknown name.
        """
        for name in names:
            if name not in {ALL, *self.experiments}:
                raise TableError(f"unknown experiment {name!r}; known: {ALL}, {', '.join(self.experiments)}")
        rows = self.experiments.values()
        return [row for row in rows if row.name in names or ALL in names or (row.overnight and not names)]

    def of_the_paper(self):
        """The rows that compare methods as the paper does."""
        return [row for row in self.experiments.values() if row.paper_iterations and len(row.seeds) > 1]

    def options(self, experiment, method):
        """main.py's options of a row and a column, without the seed: a list of words."""
        row = self.experiments[experiment]
        added = self.methods[method].options.format(nm_size=row.nm_size)
        return [*shlex.split(row.options), "--num-batches", str(row.iterations), *shlex.split(added)]

    def check(self, row, results, runs=None):
        """Hold what lies in the folders of results and of runs against the table, before anything is made of it.

        Args:
            row: `Experiment`.
            results, runs: the folders; runs may be left out.

        Raises:
            TableError: a run was made, or begun, with other options than the table has now.
        """
        for method in row.methods:
            wanted = " ".join(self.options(row.name, method))
            for seed in row.seeds:
                found = [(Path(results, row.name, method, f"{seed}.json"), _options)]
                if runs:
                    found.append((Path(runs, row.name, method, str(seed), "options"), Path.read_text))
                for path, read in found:
                    if path.is_file() and read(path).strip() != wanted:
                        raise TableError(
                            f"{path}: is of a run with other options than the table's; move it away, or give the "
                            f"method or experiment another name; expected {wanted}"
                        )


def check_packages(requirements):
    """Find out, before hours are spent, whether the packages of a requirements file are installed.

    Raises:
        TableError: one is not.
    """
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        name = line.partition("==")[0].strip()
        if name and not name.startswith("#"):
            try:
                metadata.distribution(name)
            except metadata.PackageNotFoundError:
                raise TableError(
                    f"{sys.executable} has no package {name}; expected those of {requirements}: "
                    "pip install -r studies/requirements.txt"
                ) from None


def read(path=TABLE):
    """The `Table` of a file.

    Raises:
        TableError: the file cannot be read, a key is missing or unknown, a method is not declared.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: expected a TOML file: {error}") from None
    methods = {name: _made(Method, name, entry, path) for name, entry in content.get("methods", {}).items()}
    rows = content.get("experiments", {})
    for name, entry in rows.items():
        like = entry.pop("like", None)
        if like not in {None, *rows} - {name}:
            raise TableError(f"{path}: {name}: like {like!r}: expected the name of another experiment")
        rows[name] = rows.get(like, {}) | entry
    experiments = {name: _made(Experiment, name, entry, path) for name, entry in rows.items()}
    for experiment in experiments.values():
        for method in experiment.methods:
            if method not in methods:
                raise TableError(f"{path}: experiment {experiment.name}: no method {method!r} is declared")
    return Table(experiments, methods)


def _options(path):
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["options"])
    except (ValueError, KeyError, TypeError):
        raise TableError(f"{path}: expected what studies/evaluate.py writes, found something else") from None


def _made(kind, name, entry, path):
    expected, optional = set(kind._fields) - {"name"}, set(kind._field_defaults)
    if wrong := sorted(set(entry) ^ expected - (optional - set(entry))):
        raise TableError(f"{path}: {name}: missing or unknown keys: {', '.join(wrong)}")
    return kind(name=name, **entry)
