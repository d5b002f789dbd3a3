"""Choosing among tasks."""

import json
from collections.abc import Sequence
from typing import Any

FEW, SOME = 8, 6


def distinct(tasks: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the tasks to look at: one of each kind, sorted, where there are at most 8 kinds (the leaves of a
    small CT-graph, the two directions); else the first 6 that differ, in the order in which they were drawn.
    """
    first: dict[str, int] = {}
    for number, task in enumerate(tasks):
        first.setdefault(json.dumps(task, sort_keys=True), number)
    if len(first) > FEW:
        return list(first.values())[:SOME]
    return [first[kind] for kind in sorted(first)]
