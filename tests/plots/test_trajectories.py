"""Trajectories are drawn by the environment's own pictures: those of a family that this test adds, too."""

from rl.evaluation.task_choice import distinct


def test_distinct_tasks():
    leaves = [{"leaf": leaf} for leaf in (3, 0, 3, 1, 0)]
    assert distinct(leaves) == [1, 3, 0]
    goals = [{"goal": [float(i % 9), 0.0]} for i in range(20)]
    assert distinct(goals[::-1]) == [0, 1, 2, 3, 4, 5]
    assert len(distinct(goals[:8])) == 8
    assert distinct([{"goal": [float(i), 0.0]} for i in range(20)], 12) == list(range(12))
    assert distinct(leaves, 2) == [0, 1]
