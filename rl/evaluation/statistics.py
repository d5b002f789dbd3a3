"""Intervals by stratified bootstrap, and the paired comparison of two groups of seeds.

Seeds make no normal distribution, so intervals are percentiles of resampled statistics (arXiv 2108.13264): what is
drawn at random is drawn again with replacement within its stratum. Fewer than 5 seeds are too few for that. Differences
of pairs are compared by Student's t: claims rest on them, and it covers what it says with few seeds, too.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from rl.evaluation import intervals

RESAMPLES = 2000
FEWEST = 5  # draws that resampling needs: of 3 seeds it would cover three quarters of the time, not 95%
_BLOCK = 100  # resamples made at once, which bounds the memory


def mean(values, axis):
    """The mean."""
    return np.mean(values, axis=axis)


def interquartile_mean(values, axis):
    """The mean of the middle half: a quarter, rounded down, is left out at either end."""
    return stats.trim_mean(values, 0.25, axis=axis)


STATISTICS = {"mean": mean, "iqm": interquartile_mean}


def bootstrap(strata, statistic=mean, resamples=RESAMPLES):
    """The 95% interval of a statistic over all values together, from resampling within each stratum.

    Args:
        strata: list of arrays [n_s, ...], independent draws along the first axis.
        statistic: function of (values, axis).
        resamples: how many.

    Returns:
        (low [...], high [...]), or None where no stratum has two draws: nothing can be said then.
    """
    if all(len(stratum) < 2 for stratum in strata):
        return None
    rng = np.random.default_rng(0)
    estimates = []
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        drawn = [stratum[rng.integers(len(stratum), size=(count, len(stratum)))] for stratum in strata]
        estimates.append(statistic(np.concatenate(drawn, axis=1), axis=1))
    low, high = np.percentile(np.concatenate(estimates), [2.5, 97.5], axis=0)
    return low, high


class Estimate(NamedTuple):
    """A statistic [...] and its 95% interval (low [...], high [...]), None where the draws tell of none."""

    value: np.ndarray
    interval: tuple | None


def estimate(values, statistic=mean):
    """A statistic of independent draws (seeds), with an interval that is as wide as their number asks for.

    From 5 draws on the percentiles of a bootstrap. Of 2 to 4 the mean, whatever the statistic, with Student's interval;
    of one, or where all are equal, none.

    Args:
        values: [n, ...]
        statistic: function of (values, axis).
    """
    values = np.asarray(values, np.float64)
    if len(values) >= FEWEST and np.ptp(values, axis=0).any():
        return Estimate(statistic(values, axis=0), bootstrap([values], statistic))
    return _by_student(values)


def _by_student(values):
    centre, low, high = intervals.mean(values)
    return Estimate(centre, None if np.isnan(low).all() else (low, high))


class Comparison(NamedTuple):
    """A − B over the seeds that both groups have.

    Attributes:
        seeds: how many.
        difference: its mean, an `Estimate` with Student's interval.
        better: in how many of them A > B, ties counting half.
        improvement: their share with Wilson's interval, an `rl.evaluation.intervals.Interval`.
    """

    seeds: int
    difference: Estimate
    better: float
    improvement: intervals.Interval


def compare(first, second):
    """Compare paired values [S], one pair a seed: a `Comparison`."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    better = (difference > 0) + 0.5 * (difference == 0)
    return Comparison(len(difference), _by_student(difference), float(better.sum()), intervals.rate(better))
