"""Reference curves: what other implementations made of the same tasks (docs/reference_curves)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rl import arguments
from rl.errors import UserError


@dataclass(frozen=True)
class Reference:
    """A reference curve: what another implementation made of the same command.

    Attributes:
        path: its file.
        environment, method, source: what, and who says so.
        nm_gate: hard or soft; None for plain methods.
        iterations: [N]
        curves: name of the metric -> values [N].
    """

    path: Path
    environment: str
    method: str
    source: str
    nm_gate: str | None
    iterations: np.ndarray
    curves: dict


def read_reference(path):
    """Read a reference curve (docs/reference_curves/README.md defines the file).

    Raises:
        UserError: not such a file.
    """
    content = arguments.load_json(path)
    missing = [name for name in ("environment", "method", "source", "iteration") if name not in content]
    if missing:
        raise UserError(f"{path}: expected a reference curve, found none of {', '.join(missing)}")
    iterations = np.asarray(content["iteration"])
    curves = {name: np.asarray(content[name]) for name in ("before_update", "after_update") if name in content}
    if not curves or any(values.shape != iterations.shape for values in curves.values()):
        raise UserError(f"{path}: expected before_update or after_update with as many entries as iteration")
    named = (content[name] for name in ("environment", "method", "source"))
    return Reference(Path(path), *named, content.get("nm_gate"), iterations, curves)
