"""Families of comparisons, and tables of Markdown."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

from rl.evaluation.comparisons import LEVEL, Difference, adjusted
from rl.plots.table import markdown

Name = TypeVar("Name", bound=Hashable)


class Family(dict[Name, Difference]):
    """Differences that Holm's correction covers together. Those that are equal in every seed are one test."""

    @cached_property
    def p(self) -> dict[Name, float]:
        """The adjusted p-values of those that have enough seeds for one."""
        raised = adjusted({difference: difference for difference in self.values()})
        return {name: raised[difference] for name, difference in self.items() if difference in raised}

    @property
    def tests(self) -> int:
        """How many tests Holm's correction covers."""
        return len({self[name] for name in self.p})

    def text(self, name: Name, digits: int = 2) -> str:
        """A difference with its interval, bold where it is significant; empty where it is not in the family."""
        if name not in self:
            return ""
        text = self[name].text(digits)
        return f"**{text}**" if self.p.get(name, 1.0) < LEVEL else text

    def shown_p(self, name: Name) -> str:
        """The adjusted p-value as text; empty where there is none."""
        return p_value(self.p[name]).removeprefix("p ").removeprefix("= ") if name in self.p else ""


def secondary(families: Mapping[str, Family]) -> list[str]:
    """The lines that name a table's families, title -> family, and how many tests each has; none if none is tested."""
    named = [f"{title} ({count(family.tests, 'test')})" for title, family in families.items() if family.tests]
    kind = "Secondary family" if len(named) == 1 else "Secondary families"
    return [f"*{kind}*: {'; '.join(named)}.", ""] if named else []


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'s' * (number != 1)}"


def p_value(p: float) -> str:
    """A p-value in words, with three digits after the point, from 0.1 on with two."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{2 if p >= 0.0995 else 3}f}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, without the columns that are empty, with an empty line at its end."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return [*markdown([head[column] for column in kept], [[row[column] for column in kept] for row in rows]), ""]
