"""What an evaluation says in numbers: results.json and the table that test.py prints."""

import math
from typing import Any

from rl.evaluation import intervals
from rl.evaluation.evaluate import Evaluated, by_class


def results(conditions: dict[str, Any], measured: Evaluated, normal: Evaluated | None) -> dict[str, Any]:
    """The content of results.json.

    Args:
        conditions: how the evaluation was made.
        measured: what is reported.
        normal: the same evaluation without the intervention, where there is one.
    """
    return {
        **conditions,
        "intervals": "95%, over tasks: Student's t for returns, Wilson's for success rates",
        "returns": returns(measured),
        **({"returns_normal": returns(normal)} if normal else {}),
        "returns_per_task": [summary.returns.mean(axis=1).tolist() for summary in measured.summaries],
        **success(measured),
    }


def returns(evaluated: Evaluated) -> list[dict[str, Any]]:
    """The mean return and its interval over tasks after each number of updates."""
    per_task = [summary.returns.mean(axis=1) for summary in evaluated.summaries]
    return [
        {"updates": updates, "mean": float(values.mean()), "half_width_95": finite(float(intervals.half_width(values)))}
        for updates, values in enumerate(per_task)
    ]


def success(evaluated: Evaluated) -> dict[str, Any]:
    """The success rates after each number of updates, with intervals over tasks, if the environment reports success."""
    found = [summary.success for summary in evaluated.summaries if summary.success is not None]
    if not found:
        return {}
    per_task = [{name: values.mean(axis=1) for name, values in success.items()} for success in found]
    return {
        "success": [
            {"updates": updates} | {name: rate(shares) for name, shares in success.items()}
            for updates, success in enumerate(per_task)
        ],
        "success_per_class": {
            name: [rate(success["any"][members]) for success in per_task]
            for name, members in by_class(evaluated.tasks).items()
        },
        "success_per_task": [success["any"].tolist() for success in per_task],
    }


def rate(shares: intervals.Numbers) -> dict[str, float]:
    """A rate and its interval over tasks, for JSON."""
    return {name: float(value) for name, value in intervals.rate(shares)._asdict().items()}


def finite(number: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(number) else number


def table(evaluated: Evaluated) -> str:
    """The returns, and the success rates if the environment reports success, as text."""
    rates = success(evaluated)
    kinds = {"any": "success rate (any step)", "final": "success rate (final step)"} if rates else {}
    header = ["updates      mean    95% interval over tasks", *(f"{words:<26}" for words in kinds.values())]
    title = f"return on {len(evaluated.tasks)} tasks × {evaluated.summaries[0].returns.shape[1]} episodes"
    lines = [title, "   ".join(header).rstrip()]
    for updates, row in enumerate(returns(evaluated)):
        interval = "none" if row["half_width_95"] is None else f"±{row['half_width_95']:.3f}"
        cells = [f"{updates:7d}{row['mean']:10.3f}    {interval:<23}"]
        for name in kinds:
            share = rates["success"][updates][name]
            cells.append(f"{share['mean']:6.1%} [{share['low']:.1%}, {share['high']:.1%}]".ljust(26))
        lines.append("   ".join(cells).rstrip())
    if rates and rates["success_per_class"]:
        lines.append("success rate (any step), by class, after each number of updates")
        for name, shares in rates["success_per_class"].items():
            lines.append(f"  {name:<28}" + "".join(f"{share['mean']:8.1%}" for share in shares))
    return "\n".join(lines)
