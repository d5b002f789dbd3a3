"""How what results/ keeps is written: JSON of numbers that people can read and compare."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rl.files import write_text


def write_keys(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as JSON, a line a key: readable, and a tenth of the lines that an indented list of numbers has."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    write_text(path, f"{{\n{lines}\n}}\n")


def rounded(values: Any) -> Any:
    """Numbers with five significant digits, for JSON; None of None and of NaN."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [rounded(value) for value in values]
    return None if np.isnan(values) else float(f"{values:.5g}")
