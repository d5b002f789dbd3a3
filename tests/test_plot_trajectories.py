import numpy as np
import pytest

from rl.envs.ctgraph import CRASH, DECISION, HOME, LEAF, WAIT
from rl.plots import runs, trajectories
from rl.tasks import distinct


def test_visits_by_hand():
    """Depth 1, two branches: nodes 0, 1, 2. Of four episodes one ends at leaf 1, one at leaf 2, two crash at once."""
    # home → wait → decision → wait → leaf → home; the state after each step, [5 steps, 4 episodes].
    arriving = [WAIT, DECISION, WAIT, LEAF, HOME]
    crashing = [CRASH, 0, 0, 0, 0]
    state_type = np.array([arriving, arriving, crashing, crashing]).T
    node = np.array([[0, 0, 1, 1, 0], [0, 0, 2, 2, 0], [0] * 5, [0] * 5]).T
    mask = np.array([[1] * 5, [1] * 5, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).T
    reached, crashed = trajectories.visits(node, state_type, mask, 3)
    assert reached.tolist() == [1.0, 0.25, 0.25] and crashed == 0.5
    # The same as two tasks of two episodes.
    split = (values.reshape(5, 2, 2) for values in (node, state_type, mask))
    np.testing.assert_array_equal(trajectories.visits(*split, 3)[0], reached)


def test_steps_after_the_end_are_no_visits():
    node, state_type, mask = np.array([[0], [2]]), np.array([[CRASH], [CRASH]]), np.array([[1], [0]])
    assert trajectories.visits(node, state_type, mask, 3)[0].tolist() == [1.0, 0.0, 0.0]


def test_places_of_the_nodes():
    expected = [(1 / 2, 0), (1 / 4, -1), (3 / 4, -1), (1 / 8, -2), (3 / 8, -2), (5 / 8, -2), (7 / 8, -2)]
    np.testing.assert_allclose(trajectories.places(2, 2), expected)


def test_positions_end_with_the_clipped_last_move():
    observations = np.array([[0.0, 0.0], [0.1, 0.05], [0.0, 0.0]])
    actions = np.array([[0.3, 0.05], [-0.02, -7.0], [0.0, 0.0]])
    found = trajectories.positions(observations, actions, np.array([1, 1, 0]))
    np.testing.assert_allclose(found, [[0, 0], [0.1, 0.05], [0.08, -0.05]])


def test_whereabouts():
    # Second halves: (2, 2), (4, 2) with mean (3, 2); (1, 0) alone: the mean of both is (2, 1).
    paths = [np.array([[0, 0], [9, 9], [2, 2], [4, 2]]), np.array([[0, 0], [1, 0]])]
    np.testing.assert_allclose(trajectories.whereabouts(paths), [2, 1])


def test_distinct_tasks():
    leaves = [{"leaf": leaf} for leaf in (3, 0, 3, 1, 0)]
    assert distinct(leaves) == [1, 3, 0]
    goals = [{"goal": [float(i % 9), 0.0]} for i in range(20)]
    assert distinct(goals[::-1]) == [0, 1, 2, 3, 4, 5]
    assert len(distinct(goals[:8])) == 8


@pytest.mark.parametrize(
    "task, label",
    [
        ({"leaf": 3}, "leaf 3"),
        ({"goal": [0.123, -0.5]}, "goal 0.12 −0.50"),
        ({"env_name": "push-v3", "rand_vec": [1.0, 2.0]}, "task 0"),
    ],
)
def test_labels(task, label):
    evaluation = runs.Evaluation(None, None)
    evaluation.__dict__["tasks"] = [task]
    assert evaluation.label(0) == label
