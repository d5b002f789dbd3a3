"""Reference curves: what other implementations made of the same tasks (docs/reference_curves)."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl.config import Config
from rl.errors import UserError
from rl.evaluation.metric_names import METRICS, metric_named
from rl.files import read_json


@dataclass(frozen=True)
class Reference:
    """A reference curve: what another implementation made of the same command.

    Attributes:
        path: its file.
        environment, method, source: what, and who says so.
        nm_gate: hard or soft; None for plain methods.
        options: those of main.py that it is known to have had.
        curves: a row an iteration, a column a metric of `rl.evaluation.metric_names`.
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
    options, words = content.get("options", {}), ("environment", "method", "source")
    if not isinstance(options, dict) or not all(isinstance(content[name], str) for name in words):
        raise UserError(f"{path}: expected options by name, and words as {', '.join(words)}")
    try:
        values = {
            name: np.array(value, float) for name, value in content.items() if name == "iteration" or metric_named(name)
        }
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: expected numbers in {', '.join(METRICS)} and iteration: {error}") from None
    iterations = values.pop("iteration")
    if not values or iterations.ndim != 1 or any(value.shape != iterations.shape for value in values.values()):
        raise UserError(f"{path}: expected {' or '.join(METRICS)} with as many entries as iteration")
    if (
        not all(np.isfinite(value).all() for value in (iterations, *values.values()))
        or not (np.diff(iterations) > 0).all()
    ):
        raise UserError(f"{path}: expected finite numbers, and iterations that increase")
    unknown = sorted(set(options) - {field.name for field in dataclasses.fields(Config)})
    if unknown:
        raise UserError(f"{path}: options: unknown {', '.join(unknown)}")
    environment, method, source = (content[name] for name in words)
    curves = pd.DataFrame(values, index=iterations.astype(np.int64))
    return Reference(Path(path), environment, method, source, content.get("nm_gate"), options, curves)
