"""Choosing among tasks."""

import json
from collections.abc import Sequence
from typing import Any

FEW, SOME = 8, 6


def distinct(tasks: Sequence[dict[str, Any]], most: int | None = None) -> list[int]:
    """The numbers of the tasks to look at: one of each kind, sorted, where there are at most 8 kinds (the leaves of a
    small CT-graph, the two directions); else the first 6 that differ, in the order in which they were drawn. With
    `most`, that takes the place of both numbers.
    """
    first: dict[str, int] = {}
    for number, task in enumerate(tasks):
        first.setdefault(json.dumps(task, sort_keys=True), number)
    if len(first) > (most or FEW):
        return list(first.values())[: most or SOME]
    return [first[kind] for kind in sorted(first)]
