"""95% intervals over independent samples: an evaluation's tasks, or a run's iterations.

Episodes of one task are alike, so the samples of an evaluation are its tasks, each with its mean over episodes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special  # scipy.stats, which calls the same functions, takes half a second to import

Numbers = Sequence[Any] | Shaped[np.ndarray, "..."]  # numpy's ArrayLike has no tuples to a checker at run time


class Interval(NamedTuple):
    """A mean and its 95% interval; the ends are NaN where the samples determine none."""

    mean: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def half_width(samples: Numbers) -> Float[np.ndarray, "..."]:
    """Student's t₀.₉₇₅,ₙ₋₁ · s / √n of samples [n, ...] along the first axis.

    NaN for one sample, or samples that are all equal: they do not show how far others would lie.
    """
    samples = np.asarray(samples, np.float64)
    count = len(samples)
    if count < 2:
        return np.full(samples.shape[1:], np.nan)
    error = samples.std(axis=0, ddof=1) / np.sqrt(count)
    return np.where(np.ptp(samples, axis=0) > 0, special.stdtrit(count - 1, 0.975) * error, np.nan)


def mean(samples: Numbers) -> Interval:
    """The mean of samples [n, ...] along the first axis, with its interval by Student's t."""
    centre, half = np.asarray(np.mean(samples, axis=0)), half_width(samples)
    return Interval(centre, centre - half, centre + half)


def rate(shares: Numbers) -> Interval:
    """The mean of shares with Wilson's interval: (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), z = z₀.₉₇₅.

    It has a width even where all or none succeed. A share between 0 and 1 spreads less than n single trials do, so with
    several episodes a task the interval is rather too wide.

    Args:
        shares: [n, ...] from 0 to 1, such as each task's share of episodes that succeed.
    """
    p, count, z = np.mean(shares, axis=0), len(np.asarray(shares)), special.ndtri(0.975)
    scale = 1 + z**2 / count
    centre, half = p + z**2 / (2 * count), z * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    # Where all or none succeed an end equals p, and rounding must not put it on p's other side.
    return Interval(p, np.clip((centre - half) / scale, 0.0, p), np.clip((centre + half) / scale, p, 1.0))
