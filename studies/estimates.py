"""Comparisons of runs as phrases and tables of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl.evaluation.comparisons import UNCLEAR, Difference
from rl.plots.table import markdown


def in_words(
    found: Mapping[Any, int],
    differences: Mapping[Any, Difference],
    titles: Mapping[Any, str],
    words: tuple[str, str, str] = ("better", "worse", UNCLEAR),
    digits: int = 2,
) -> list[str]:
    """Verdicts as phrases: ["better: A (1.00 [0.50, 1.50])", "no significant difference: B; C"]; `words` are for what
    is higher, for what is lower, and for what is neither.
    """
    parts = []
    for sign, word in zip((1, -1, 0), words, strict=True):
        members = [
            f"{titles[name]} ({differences[name].text(digits)})" if sign else titles[name]
            for name, verdict in found.items()
            if verdict == sign
        ]
        if members:
            parts.append(f"{word}: {'; '.join(members)}")
    return parts


def bullets(title: str, phrases: Sequence[str]) -> list[str]:
    """The lines of a list in Markdown, with an empty one at either end; nothing of no phrases."""
    return ["", title, "", *(f"- {phrase}" for phrase in phrases), ""] if phrases else [""]


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, with an empty one at its end."""
    return [*markdown(head, rows), ""]
