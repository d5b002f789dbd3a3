"""Hand-written text in which the numbers are the results': {name of a figure} is replaced."""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from estimates import Family, count, p_value
from measures import MEASURES, Found, Run, difference, effect
from sections import changed_later, family, rivals
from table import Experiment

from rl.evaluation.comparisons import LEVEL, level, number

WIDTH = 120


class NotRun(LookupError):
    """The runs that a figure is of are not there."""


def _tested(family: Family[str], name: str) -> str:
    if name not in family.p:
        raise NotRun
    return f"{family[name]} (secondary {p_value(family.p[name])})"


def _in_training(run: Run, first: str, last: str) -> float:
    """The mean return after the update from an iteration to another, both included."""
    return float(np.mean(run["curves"]["after_update"][int(first) : int(last) + 1]))


class Figures:
    """What hand-written text may quote: `{method of this class, its arguments}`, with blanks between.

    Experiments and methods are named as in experiments.toml, measures as in `measures.MEASURES`.

    Args:
        rows, kept, primaries: each experiment, its results, and the family of its primary endpoint.
        blocks: name -> lines that stand for themselves, such as tables.
    """

    def __init__(
        self,
        rows: Mapping[str, Experiment],
        kept: Mapping[str, Found],
        primaries: Mapping[str, Family[str]],
        blocks: Mapping[str, Sequence[str]],
    ):
        self.rows, self.kept, self.primaries, self.blocks = rows, kept, primaries, blocks

    def filled(self, text: str) -> str:
        """The text with its figures. A paragraph, or an item of a list, is left out where its runs are missing."""
        parts = re.split(r"(\n\n|\n(?=- ))", text.strip("\n"))
        lines = []
        for before, part in zip(["", *parts[1::2]], parts[::2], strict=True):
            try:
                lines.append(before + self._part(part))
            except NotRun:
                continue
        return "".join(lines).strip("\n") + "\n"

    def _part(self, part: str) -> str:
        if match := re.fullmatch(r"\{(\w+)\}", part):
            if not self.blocks[match[1]]:
                raise NotRun
            return "\n".join(self.blocks[match[1]]).strip("\n")
        if part.startswith(("#", "|", "!")):  # a heading, a table, a picture
            return part
        found = re.sub(r"\{(\w+) ([^{}]*)\}", lambda match: getattr(self, match[1])(*match[2].split()), part)
        indent = "  " * part.startswith("- ")
        return textwrap.fill(" ".join(found.split()), WIDTH, subsequent_indent=indent, break_long_words=False,
                             break_on_hyphens=False)  # fmt: skip

    def _values(self, experiment: str, method: str, measure: str) -> list[float]:
        runs = self.kept[experiment].get(method, {}).values()
        values = [value for run in runs if (value := MEASURES[measure](run)) is not None]
        if not values:
            raise NotRun
        return values

    def level(self, experiment: str, method: str, measure: str) -> str:
        """A method's measure over seeds, with its interval."""
        return level(self._values(experiment, method, measure))

    def highest(self, experiment: str, method: str, measure: str, digits: str = "2") -> str:
        """A method's highest seed."""
        return number(max(self._values(experiment, method, measure)), int(digits))

    def lowest(self, experiment: str, method: str, measure: str, digits: str = "2") -> str:
        """A method's lowest seed."""
        return number(min(self._values(experiment, method, measure)), int(digits))

    def count(self, experiment: str, method: str, measure: str, value: str) -> str:
        """In how many seeds a measure has a value."""
        values = self._values(experiment, method, measure)
        return f"{sum(one == float(value) for one in values)} of {len(values)}"

    def difference(self, experiment: str, one: str, other: str, measure: str) -> str:
        """A method's measure minus another's, with its interval."""
        found = difference(self.kept[experiment], one, other, MEASURES[measure])
        if not found.values:
            raise NotRun
        return found.text()

    def secondary(self, experiment: str, method: str, measure: str) -> str:
        """A method's measure minus the baseline's, with its p-value in the family of the page's table."""
        row = self.rows[experiment]
        found = self.kept[experiment]
        if measure == "return_last":
            return _tested(changed_later(row, found), method)
        but = row.proposed if measure == "return_1" else ""  # as in the page's table: it is the primary endpoint
        return _tested(family(row, found, MEASURES[measure], but), method)

    def rival(self, experiment: str, method: str) -> str:
        """The proposed method's return after one update minus another's, with its p-value in the family of them all."""
        return _tested(rivals(self.rows[experiment], self.kept[experiment]), method)

    def effect(self, experiment: str, method: str, measure: str) -> str:
        """A measure that is a difference already, with its interval."""
        found = effect(self.kept[experiment].get(method, {}), MEASURES[measure])
        if not found.values:
            raise NotRun
        return found.text()

    def alone(self, experiment: str, times: str) -> str:
        """The p-value of an experiment's primary endpoint without a correction, times a number."""
        p = self.primaries[experiment][experiment].p
        if p is None:
            raise NotRun
        return p_value(float(times) * p)

    def leaves(self, experiment: str, method: str, measure: str, iteration: str) -> str:
        """Of how many leaves an exact measure is a half or more at an iteration, the mean over seeds."""
        runs = [run["exact"] for run in self.kept[experiment].get(method, {}).values()]
        if not runs:
            raise NotRun
        at = [run["leaves"][measure][run["checkpoints"].index(int(iteration))] for run in runs]
        return number(float(np.mean(np.sum(np.array(at) >= 0.5, axis=1))), 1)

    def seed(self, experiment: str, method: str, seed: str, measure: str) -> str:
        """A measure of one run."""
        value = MEASURES[measure](self._run(experiment, method, seed))
        return number(value) if value is not None else "none"

    def curve(self, experiment: str, method: str, seed: str, first: str, last: str) -> str:
        """The mean return after the update in training, from an iteration to another, both included, of one run."""
        return number(_in_training(self._run(experiment, method, seed), first, last))

    def curves(self, experiment: str, method: str, first: str, last: str) -> str:
        """The same of all runs of a method, from the lowest to the highest, and how many they are."""
        found = [_in_training(run, first, last) for run in self.kept[experiment].get(method, {}).values()]
        if not found:
            raise NotRun
        ends = dict.fromkeys((number(min(found)), number(max(found))))
        return f"{' to '.join(ends)} in {count(len(found), 'run')}"

    def _run(self, experiment: str, method: str, seed: str) -> Run:
        try:
            return self.kept[experiment][method][int(seed)]
        except KeyError:
            raise NotRun from None

    def primary(self, verdict: str) -> str:
        """The experiments whose primary endpoint is better, worse or unclear, each with its figures."""
        wanted = {"better": 1, "worse": -1, "unclear": 0}[verdict]
        shown = []
        for name, tests in self.primaries.items():
            if name in tests.p and wanted == np.sign(np.mean(tests[name].values)) * (tests.p[name] < LEVEL):
                shown.append(f"{self.rows[name].title} ({tests[name]}, {p_value(tests.p[name])})")
        if not shown:
            raise NotRun
        return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
