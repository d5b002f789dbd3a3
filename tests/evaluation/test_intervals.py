import numpy as np
import pytest
from scipy import stats

from rl.evaluation import intervals


def test_students_interval_by_hand():
    # 1, 2, 3, 6: mean 3; deviations² 4 + 1 + 0 + 9 = 14; s² = 14/3; s/√4 = 1.0801; t(0.975, 3) = 3.1824: 3.4375.
    found = intervals.mean(np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [6.0, 60.0]]))
    half = 3.182446305 * np.sqrt(14 / 3) / 2
    np.testing.assert_allclose(found.mean, [3.0, 30.0])
    np.testing.assert_allclose([found.low, found.high], [[3 - half, 30 - 10 * half], [3 + half, 30 + 10 * half]])


def test_few_samples_have_wide_intervals_and_one_has_none():
    """Two samples of distance 2: s/√2 = 1, and t(0.975, 1) = 12.706."""
    assert intervals.half_width([0.0, 2.0]) == pytest.approx(12.706, abs=1e-3)
    assert np.isnan(intervals.half_width([4.0]))
    assert np.isnan(intervals.half_width(np.ones((1, 3)))).tolist() == [True] * 3


def test_samples_that_are_all_equal_have_no_interval():
    """They do not mean that all others would be equal, too."""
    half = intervals.half_width(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]]))
    assert np.isnan(half).tolist() == [True, False]


def test_a_rate_has_wilsons_interval():
    # Wilson 1927 for 0 of n: low 0, high z²/(n + z²) = 3.8415/(20 + 3.8415) = 0.1611.
    none = intervals.rate(np.zeros(20, bool))
    assert (none.mean, none.low) == (0.0, 0.0) and none.high == pytest.approx(0.1611, abs=1e-4)
    # 5 of 10: centre 1/2, half-width z·√(n/4 + z²/4)/(n + z²) = 1.96·√3.460/13.84 = 0.2634.
    half = intervals.rate(np.arange(10) < 5)
    assert half == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize("successes", range(8))
def test_a_rate_of_whole_trials_equals_scipys(successes):
    expected = stats.binomtest(successes, 7).proportion_ci(0.95, method="wilson")
    assert intervals.rate(np.arange(7) < successes)[1:] == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_shares_count_as_one_trial_each():
    """Four tasks that succeed half of the time give the interval of two that always and two that never do."""
    assert intervals.rate([0.5] * 4) == pytest.approx(intervals.rate([0, 1, 0, 1]))


def test_an_interval_of_a_rate_never_leaves_out_the_rate():
    """Of none or all of n, an end is p itself; at n = 100 and at n = 10 rounding would put it beside p."""
    for count in range(1, 301):
        for share in (0.0, 1.0):
            found = intervals.rate(np.full(count, share))
            assert found.low <= found.mean <= found.high, (count, share)
