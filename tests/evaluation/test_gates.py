import numpy as np

from rl.evaluation import gates


def test_counts_by_hand():
    """Two tasks, one update, one observation, four units:

    task 0: + + − −  ->  + − − −
    task 1: + + − −  ->  + + − +
    """
    values = np.array(
        [
            [[[1.0, 0.5, -1.0, -0.995]], [[1.0, -0.2, -1.0, -1.0]]],
            [[[1.0, 0.5, -1.0, -0.995]], [[1.0, 0.0, -0.5, 1.0]]],
        ]
    )
    found = gates.shares(values)
    np.testing.assert_array_equal(found["negative"], [4 / 8, 4 / 8])
    # Above 0.99 in absolute value: 3 of 4 units twice before; after, 3 of task 0 and 2 of task 1.
    np.testing.assert_array_equal(found["saturated"], [6 / 8, 5 / 8])
    # Units 0 (always +) and 2 (always −).
    assert found["constant"] == 2 / 4
    # Units 1 and 3 differ after the update.
    np.testing.assert_array_equal(found["flips_between_tasks"], [0.0, 2 / 4])
    # Unit 1 of task 0 and unit 3 of task 1, of eight.
    np.testing.assert_array_equal(found["flips_between_steps"], [2 / 8])


def test_pairs_of_three_tasks():
    """Signs +, −, − of one unit: of the pairs 01, 02, 12 two differ."""
    found = gates.shares(np.array([1.0, -1.0, -1.0]).reshape(3, 1, 1, 1))
    np.testing.assert_allclose(found["flips_between_tasks"], [2 / 3])
    assert found["flips_between_steps"].shape == (0,)


def test_a_single_task_has_no_pairs():
    assert gates.shares(np.ones((1, 2, 3, 4)))["flips_between_tasks"] is None
