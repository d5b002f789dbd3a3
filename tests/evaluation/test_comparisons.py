"""Levels and paired differences of seeds, and Holm's correction."""

import numpy as np
import pytest

from rl.evaluation import comparisons


def test_levels_are_written_as_their_number_allows():
    assert comparisons.level([]) == comparisons.level([None]) == ""
    assert comparisons.level([1.5]) == "1.50" and comparisons.level([1.5, -0.004]) == "1.50; 0.00"
    # Mean 2 of 1, 2, 3 with standard deviation 1: t(0.975, 2) = 4.303, 4.303/√3 = 2.484.
    assert comparisons.level([1.0, 2.0, 3.0]) == "2.00 [−0.48, 4.48]"
    # A quarter of 5, rounded down, is 1 at either end: the mean of 1, 2 and 3; the interval is a bootstrap's.
    assert comparisons.level([0.0, 1.0, 2.0, 3.0, 100.0]).startswith("2.00 [")
    assert comparisons.level([1.0] * 5) == "1.00"


def test_differences_are_paired_by_seed_and_have_students_interval():
    # Seeds 2, 3 and 4 are shared and differ by 0.5, 0.6 and 0.7: 0.6 ± 4.303·0.1/√3 = 0.248; t = 0.6√3/0.1 = 10.39,
    # and with 2 degrees of freedom p = 1 − t/√(2 + t²) = 0.00913.
    ours = {1: 9.0, 2: 1.5, 3: 1.6, 4: 1.7}
    found = comparisons.Difference.between(ours, dict.fromkeys((2, 3, 4, 5), 1.0))
    assert found.values == pytest.approx((0.5, 0.6, 0.7)) and str(found) == "0.60 [0.35, 0.85]"
    assert found.p == pytest.approx(0.00913, abs=1e-5)
    # Too few seeds: no test, so no claim. Differences that are all equal are certain, or nothing; with no interval.
    two = comparisons.Difference.between(ours, {2: 1.0, 3: 1.0})
    assert (two.p, str(two)) == (None, "0.50; 0.60")
    same, higher = comparisons.Difference((0.0,) * 3), comparisons.Difference((1.0,) * 3)
    assert [(one.p, str(one)) for one in (same, higher)] == [(1.0, "0.00"), (0.0, "1.00")]
    assert str(comparisons.Difference.between(ours, {})) == ""


def test_holms_correction_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04; and 0.03, 0.03 times 2, 1: the second is not smaller.
    np.testing.assert_allclose(comparisons.holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(comparisons.holm([0.03, 0.03]), [0.06, 0.06])
    assert comparisons.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and len(comparisons.holm([])) == 0
