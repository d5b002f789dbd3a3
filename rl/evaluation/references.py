"""Reference curves: what other implementations made of the same tasks (docs/reference_curves)."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl.config import Config
from rl.errors import UserError
from rl.files import read_json


@dataclass(frozen=True)
class Reference:
    """A reference curve: what another implementation made of the same command.

    Attributes:
        path: its file.
        environment, method, source: what, and who says so.
        nm_gate: hard or soft; None for plain methods.
        options: those of main.py that it is known to have had.
        curves: a row an iteration, a column a metric.
    """

    path: Path
    environment: str
    method: str
    source: str
    nm_gate: str | None
    options: dict[str, Any]
    curves: pd.DataFrame


def read_reference(path: Path) -> Reference:
    """Read a reference curve (docs/reference_curves/README.md defines the file).

    Raises:
        UserError: not such a file.
    """
    content = read_json(path)
    missing = [name for name in ("environment", "method", "source", "iteration") if name not in content]
    if missing:
        raise UserError(f"{path}: expected a reference curve, found none of {', '.join(missing)}")
    values = {name: content[name] for name in ("before_update", "after_update") if name in content}
    if not values or any(np.shape(value) != np.shape(content["iteration"]) for value in values.values()):
        raise UserError(f"{path}: expected before_update or after_update with as many entries as iteration")
    options = content.get("options", {})
    unknown = sorted(set(options) - {field.name for field in dataclasses.fields(Config)})
    if unknown:
        raise UserError(f"{path}: options: unknown {', '.join(unknown)}")
    environment, method, source = (content[name] for name in ("environment", "method", "source"))
    curves = pd.DataFrame(values, index=content["iteration"], dtype=float)
    return Reference(Path(path), environment, method, source, content.get("nm_gate"), options, curves)
