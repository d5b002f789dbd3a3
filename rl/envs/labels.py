"""Short words for numbers and tasks, for legends and titles."""

from typing import Any

LONGEST = 24  # characters


def signed(value: int | float) -> str:
    """A number with two decimals and a real minus sign, none before 0.00."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def in_words(task: dict[str, Any]) -> str:
    """A task as its names and values: leaf 3; goal (0.10, −0.30). Empty where that would be long."""
    text = ", ".join(f"{name} {_value(value)}" for name, value in task.items())
    return text if len(text) <= LONGEST else ""


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, float):
        return signed(value)
    return str(value).replace("-", "−") if isinstance(value, int) else str(value)
