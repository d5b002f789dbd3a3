"""What is drawn of a run, and held against reference curves, over its iterations."""

from typing import NamedTuple

RETURN, SUCCESS = "return of an episode (reward)", "success rate (any step)"
# Name on the command line -> tag in progress.csv, label, axis. <k> is a number of updates.
METRICS = {
    "after_update": ("running_returns/after_update", "after the update", RETURN),
    "before_update": ("running_returns/before_update", "before the update", RETURN),
    "test/<k>": ("evaluation_rew/avg_rew {}", "test tasks, {} update(s)", RETURN),
    "success/<k>": ("evaluation_success/any {}", "test tasks, {} update(s)", SUCCESS),
}


class Metric(NamedTuple):
    """A metric: its name on the command line, its tag in progress.csv, its label, the axis that it belongs to."""

    name: str
    tag: str
    label: str
    axis: str


def metric_named(name: str) -> Metric | None:
    """The metric of a name on the command line or in a reference curve, if there is one."""
    kind, _, updates = name.partition("/")
    counted = updates.isascii() and updates.isdecimal() and len(updates) < 10
    found = METRICS.get(f"{kind}/<k>" if counted else name if "/" not in name else "")
    if found is None:
        return None
    count = int(updates or 0)
    tag, label, axis = found
    return Metric(name, tag.format(count), label.format(count).replace("(s)", "" if count == 1 else "s"), axis)
