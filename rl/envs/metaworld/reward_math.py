"""Stand-ins for what Meta-World's reward functions call: the same results on scalars and short vectors, for less.

Each returns the number and the *type* that the original returns. A float32 action times a Python float is a float32,
times a `numpy.float64` it is not: a type changed here would change a reward in its eighth digit.
"""

import functools
import math
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation as ScipyRotation


def norm(x: Any, ord: Any = None) -> Any:
    """`numpy.linalg.norm`, quick for the Euclidean norm of a float64 vector."""
    if type(x) is np.ndarray and x.ndim == 1 and ord in (None, 2):
        return np.float64(math.sqrt(x.dot(x)))
    return np.linalg.norm(x, ord)


def clip(x: Any, low: Any, high: Any) -> Any:
    """`numpy.clip`, quick for scalars."""
    if isinstance(x, (float, np.floating)):
        return np.asarray(x).dtype.type(min(max(x, low), high))
    return np.clip(x, low, high)


def hstack(parts: Sequence[Any]) -> np.ndarray:
    """`numpy.hstack` of scalars, or of vectors."""
    return np.concatenate(parts) if np.ndim(parts[0]) else np.array(parts)


@functools.cache
def _sigmoid_scale(sigmoid: str, value_at_margin: float) -> float | None:
    """The factor of the distance at which the sigmoid has the value wanted at the margin; None for another sigmoid."""
    if not 0 < value_at_margin < 1:
        return None
    if sigmoid == "long_tail":
        return math.sqrt(1 / value_at_margin - 1)
    if sigmoid == "gaussian":
        return math.sqrt(-2 * math.log(value_at_margin))
    return None


def tolerance(
    x: Any,
    bounds: tuple[Any, Any] = (0.0, 0.0),
    margin: Any = 0.0,
    sigmoid: Any = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """1 within the bounds, less outside: value_at_margin at the distance `margin`, 0 anywhere if the margin is 0.

    long tail: 1 / ((c d)² + 1), Gaussian: exp(−(c d)² / 2), d the distance from the bounds in margins.
    """
    low, high = bounds
    scale = _sigmoid_scale(sigmoid, value_at_margin)
    if scale is None or not isinstance(x, float) or not isinstance(margin, float | int) or margin < 0 or low > high:
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
    if low <= x <= high:
        return 1.0
    if margin == 0:
        return 0.0
    distance = float(low - x if x < low else x - high) / margin * scale
    if sigmoid == "long_tail":
        return float(1 / (distance**2 + 1))
    return float(np.exp(-0.5 * distance**2))


def hamacher_product(a: Any, b: Any) -> Any:
    """a b / (a + b − a b), 0 where both are 0.

    Raises:
        ValueError: a or b outside [0, 1].
    """
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        raise ValueError(f"a ({a}) and b ({b}) must range between 0 and 1")
    product = a * b
    denominator = a + b - product
    return product / denominator if denominator > 0 else 0


class Rotation:
    """The one conversion of `scipy.spatial.transform.Rotation` that Meta-World uses: from a matrix to a quaternion."""

    def __init__(self, matrix: Float[np.ndarray, "3 3"]):
        self.matrix = matrix

    from_matrix = classmethod(lambda cls, matrix: cls(matrix))

    def as_quat(self) -> Float64[np.ndarray, "4"]:
        """The quaternion (x, y, z, w), from the largest of its squares (Markley's method)."""
        (a, b, c), (d, e, f), (g, h, i) = self.matrix.tolist()
        trace = a + e + i
        largest = max(a, e, i, trace)
        if largest == a:
            x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
        elif largest == e:
            x, y, z, w = b + d, 1 - trace + 2 * e, h + f, c - g
        elif largest == i:
            x, y, z, w = c + g, f + h, 1 - trace + 2 * i, d - b
        else:
            x, y, z, w = h - f, c - g, d - b, 1 + trace
        length = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array([x / length, y / length, z / length, w / length])


def _changed(module: types.ModuleType, **changes: Any) -> types.ModuleType:
    """A copy of a module with other values for some names; the module stays as it is."""
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(vars(module))
    copy.__dict__.update(changes)
    return copy


# What a name in a Meta-World module stands for -> what it shall stand for.
_REPLACEMENTS = {
    id(np): _changed(np, linalg=_changed(np.linalg, norm=norm), clip=clip, hstack=hstack),
    id(reward_utils): _changed(reward_utils, tolerance=tolerance, hamacher_product=hamacher_product),
    id(reward_utils.tolerance): tolerance,
    id(ScipyRotation): Rotation,
}


def rebound(function: types.FunctionType, **names: Any) -> types.FunctionType:
    """The function's code over the stand-ins of this module.

    Args:
        function: a plain function of a Meta-World module.
        names: further global names to bind anew.
    """
    values = {name: _REPLACEMENTS.get(id(value), value) for name, value in function.__globals__.items()} | names
    copy = types.FunctionType(function.__code__, values, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
