import itertools

import numpy as np
import pytest

from rl.evaluation import statistics


def test_statistics_by_hand():
    values = np.array([[0.0], [1.0], [2.0], [9.0], [100.0]])
    # A quarter of 5, rounded down, is 1 at either end: (1 + 2 + 9) / 3.
    assert statistics.interquartile_mean(values, axis=0) == [4.0]
    assert statistics.mean(values, axis=0) == [22.4]


@pytest.mark.parametrize("count, nominal", [(3, 0.75), (10, 0.90), (20, 0.925)])
def test_bootstrap_covers_as_docs_figures_says(count, nominal):
    """Of 2000 made-up samples; the share that covers has a standard error of at most √(¾·¼/2000) = 0.0097."""
    samples = np.random.default_rng(3).normal(5.0, 2.0, size=(count, 2000))
    low, high = statistics.bootstrap(samples)
    assert ((low < 5.0) & (high > 5.0)).mean() == pytest.approx(nominal, abs=0.03)


def test_three_values_cover_the_mean_unless_all_lie_on_one_side():
    """Of 27 resamples of three values 1 (3.7%) repeats the lowest: the interval goes from there, P = 1 − 2·(½)³ = ¾."""
    low, high = statistics.bootstrap(np.array([1.0, 2.0, 4.0]))
    assert (low, high) == (1.0, 4.0)


def test_all_resamples_of_five_values_are_taken():
    """Of 2,000 that are drawn the lower end is 0.60, not 0.54: few resamples lie there."""
    values = [0.45, 0.72, 0.93, 0.92, 0.89]
    means = sorted(sum(sorted(resample)[1:4]) / 3 for resample in itertools.product(values, repeat=5))
    assert len(means) == 3125 and means[78] == pytest.approx(0.54)  # 2.5% of 3,125 are 78.1
    found = statistics.bootstrap(np.array(values), statistics.interquartile_mean)
    np.testing.assert_allclose(found, [means[78], means[-79]])


def test_resamples_are_drawn_for_whole_curves():
    """Two iterations that differ by 10 for every seed have intervals that differ by 10."""
    values = np.random.default_rng(0).normal(size=(5, 1)) + np.array([0.0, 10.0])
    low, high = statistics.bootstrap(values)
    np.testing.assert_allclose([low[1] - low[0], high[1] - high[0]], 10.0)


def test_estimates_are_as_wide_as_their_number_asks_for():
    # 1, 2, 3: standard deviation 1, t(0.975, 2) = 4.303, 4.303/√3 = 2.484.
    value, (low, high) = statistics.estimate([1.0, 2.0, 3.0], statistics.interquartile_mean)
    assert (value, low, high) == pytest.approx((2.0, -0.484, 4.484), abs=1e-3)
    for count in (1, 2, 5):
        assert statistics.estimate([2.0] * count) == (2.0, None)
    values = [0.0, 1.0, 2.0, 3.0, 100.0]
    found = statistics.estimate(values, statistics.interquartile_mean)
    assert found.value == 2.0 and found.interval == statistics.bootstrap(
        np.array(values), statistics.interquartile_mean
    )


@pytest.mark.parametrize(
    "count, statistic, nominal",
    [(2, "mean", 0.95), (3, "mean", 0.95), (4, "mean", 0.95), (5, "mean", 0.84), (5, "iqm", 0.91)],
)
def test_estimates_cover_as_docs_figures_says(count, statistic, nominal):
    """As above: of 2000 made-up samples."""
    samples = np.random.default_rng(4).normal(5.0, 2.0, size=(count, 2000))
    low, high = statistics.estimate(samples, statistics.STATISTICS[statistic]).interval
    assert ((low < 5.0) & (high > 5.0)).mean() == pytest.approx(nominal, abs=0.03)


def test_paired_comparison_by_hand():
    # Differences 1, −1, 0, 4: mean 1, standard deviation √(14/3), half-width 3.182·√(14/3)/2 = 3.437; above in two of
    # four seeds, equal in one: 2½.
    found = statistics.compare([2.0, 1.0, 3.0, 9.0], [1.0, 2.0, 3.0, 5.0])
    assert (found.seeds, found.difference.value, found.better, found.improvement.mean) == (4, 1.0, 2.5, 0.625)
    assert found.difference.interval == pytest.approx((1 - 3.437, 1 + 3.437), abs=1e-3)
    assert 0.0 < found.improvement.low < 0.625 < found.improvement.high < 1.0


def test_differences_have_students_interval_however_many_seeds():
    # Differences 0, 1, 2, 3, 4: mean 2, standard deviation √2.5, t(0.975, 4) = 2.776: 2.776·√2.5/√5 = 1.963.
    found = statistics.compare(np.arange(5.0) + 7.0, [7.0] * 5).difference
    assert found.interval == pytest.approx((2 - 1.963, 2 + 1.963), abs=1e-3)


def test_paired_comparison_of_one_seed_has_no_interval():
    assert statistics.compare([2.0], [1.0]).difference == (1.0, None)
