"""Intervals by stratified bootstrap, and the paired comparison of two groups of seeds.

Few seeds make no normal distribution, so intervals are percentiles of resampled statistics (arXiv 2108.13264): what is
drawn at random (seeds, or the tasks of each seed's evaluation) is drawn again with replacement within its stratum.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
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


class Comparison(NamedTuple):
    """A − B over the seeds that both groups have.

    `improvement` is the share of seeds with A > B, ties counting half. Intervals are None for fewer than two seeds.
    """

    seeds: int
    difference: float
    difference_interval: tuple[float, float] | None
    improvement: float
    improvement_interval: tuple[float, float] | None


def compare(first, second):
    """Compare paired values [S], one pair a seed: a `Comparison`."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    better = (difference > 0) + 0.5 * (difference == 0)
    return Comparison(len(difference), float(difference.mean()), _interval(difference), float(better.mean()),
                      _interval(better))  # fmt: skip


def _interval(values):
    found = bootstrap([values])
    return found and (float(found[0]), float(found[1]))
