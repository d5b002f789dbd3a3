"""Intervals by bootstrap, and the paired comparison of two groups of seeds.

Seeds are not normally distributed, so intervals are percentiles of resampled statistics (arXiv 2108.13264): of all
resamples where they are few, else of some that are drawn. Fewer than 5 seeds are too few for that. Paired differences
are compared by Student's t: claims rest on them, and it keeps its nominal coverage with few seeds, too.
"""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from rl.evaluation import intervals
from rl.evaluation.intervals import Numbers

RESAMPLES = 2000
ENUMERATED = 5  # draws of which all resamples are taken: 5⁵ = 3,125
FEWEST = 5  # draws that resampling needs: of 3 seeds it would cover three quarters of the time, not 95%
_BLOCK = 100  # resamples made at once, which bounds the memory

Statistic = Callable[..., Float[np.ndarray, "..."]]  # of (values, axis)
Ends = tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]  # low, high


def mean(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """The mean."""
    return np.asarray(values.mean(axis=axis))


def interquartile_mean(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """The mean of the middle half: a quarter, rounded down, is left out at either end."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=axis))


STATISTICS: dict[str, Statistic] = {"mean": mean, "iqm": interquartile_mean}


def bootstrap(draws: Float[np.ndarray, "n *rest"], statistic: Statistic = mean) -> Ends:
    """The 95% interval of a statistic of independent draws, by percentiles over resamples: all that there are of up to
    `ENUMERATED` draws, `RESAMPLES` random ones of more.
    """
    count = len(draws)
    enumerated = count <= ENUMERATED
    weights = None
    if enumerated:
        # A resample's order does not matter: one stands for all of its orders, 126 for 3,125.
        resamples = np.array(list(itertools.combinations_with_replacement(range(count), count)))
        times = (resamples[:, :, None] == np.arange(count)).sum(axis=1)
        weights = stats.multinomial.pmf(times, count, np.full(count, 1 / count))
    else:
        resamples = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    blocks = np.array_split(resamples, -(-len(resamples) // _BLOCK))
    estimates = np.concatenate([statistic(draws[block], axis=1) for block in blocks])
    method: Literal["inverted_cdf", "linear"] = "inverted_cdf" if enumerated else "linear"
    low, high = np.percentile(estimates, [2.5, 97.5], axis=0, method=method, weights=weights)
    return np.asarray(low), np.asarray(high)


class Estimate(NamedTuple):
    """A statistic and its 95% interval, None where the draws determine none."""

    value: Float[np.ndarray, "..."]
    interval: Ends | None


def estimate(values: Numbers, statistic: Statistic = mean) -> Estimate:
    """A statistic of independent draws (seeds) [n, ...], with an interval that suits their number.

    From 5 draws on the percentiles of a bootstrap. Of 2 to 4 the mean, whatever the statistic, with Student's interval;
    of one, or where all are equal, none.
    """
    values = np.asarray(values, np.float64)
    if len(values) >= FEWEST and np.ptp(values, axis=0).any():
        return Estimate(statistic(values, axis=0), bootstrap(values, statistic))
    return _by_student(values)


def _by_student(values: Float[np.ndarray, "n *rest"]) -> Estimate:
    centre, low, high = intervals.mean(values)
    return Estimate(centre, None if np.isnan(low).all() else (low, high))


class Comparison(NamedTuple):
    """A − B over the seeds that both groups have.

    Attributes:
        seeds: how many.
        difference: its mean with Student's interval.
        better: in how many of them A > B, ties counting half.
        improvement: their share with Wilson's interval.
    """

    seeds: int
    difference: Estimate
    better: float
    improvement: intervals.Interval


def compare(first: Numbers, second: Numbers) -> Comparison:
    """Compare paired values [S], one pair a seed."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    better = (difference > 0) + 0.5 * (difference == 0)
    return Comparison(len(difference), _by_student(difference), float(better.sum()), intervals.rate(better))
