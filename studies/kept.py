"""How what results/ keeps is written: JSON of numbers that people can read and compare."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rl.files import write_text


def write_keys(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as JSON, a line a key: readable, and as small as numbers in text can be."""
    written = {name: json.dumps(value, separators=(",", ":")) for name, value in content.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {value}" for name, value in written.items())
    write_text(path, f"{{\n{lines}\n}}\n")


def rounded(values: Any, digits: int = 5) -> Any:
    """Numbers with so many significant digits, for JSON, whole ones as integers; None of None and of NaN."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [rounded(value, digits) for value in values]
    if np.isnan(values):
        return None
    number = float(f"{values:.{digits}g}")
    return int(number) if number.is_integer() else number
