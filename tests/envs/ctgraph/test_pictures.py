import numpy as np

from rl import drawing, envs
from rl.envs.ctgraph import pictures
from rl.envs.ctgraph.environment import CRASH, DECISION, HOME, LEAF, WAIT
from tests.support.ctgraph_documents import FOLDER
from tests.support.recorded import recorded
from tests.support.scenes import begun

NAME, TREE = "CTgraphEnvGoalChange-v0", FOLDER / "ctgraph_d2.json"


def test_visits_by_hand():
    """Depth 1, two branches: nodes 0, 1, 2. Of four episodes one ends at leaf 1, one at leaf 2, two crash at once."""
    # home → wait → decision → wait → leaf → home; the state after each step, [5 steps, 4 episodes].
    arriving = [WAIT, DECISION, WAIT, LEAF, HOME]
    crashing = [CRASH, 0, 0, 0, 0]
    state_type = np.array([arriving, arriving, crashing, crashing]).T
    node = np.array([[0, 0, 1, 1, 0], [0, 0, 2, 2, 0], [0] * 5, [0] * 5]).T
    mask = np.array([[1] * 5, [1] * 5, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).T
    reached, crashed = pictures.visits(node, state_type, mask, 3)
    assert reached.tolist() == [1.0, 0.25, 0.25] and crashed == 0.5
    # The same as two tasks of two episodes.
    split = (values.reshape(5, 2, 2) for values in (node, state_type, mask))
    np.testing.assert_array_equal(pictures.visits(*split, 3)[0], reached)


def test_who_crashes_before_a_leaf_has_not_reached_it():
    """Both choose the first branch; one crashes in the wait state before leaf 1."""
    state_type = np.array([[WAIT, DECISION, WAIT, LEAF, HOME], [WAIT, DECISION, WAIT, CRASH, 0]]).T
    node, mask = np.array([[0, 0, 1, 1, 0], [0, 0, 1, 1, 0]]).T, np.array([[1] * 5, [1, 1, 1, 1, 0]]).T
    reached, crashed = pictures.visits(node, state_type, mask, 3)
    assert reached.tolist() == [1.0, 0.5, 0.0] and crashed == 0.5


def test_steps_after_the_end_are_no_visits():
    node, state_type, mask = np.array([[0], [2]]), np.array([[CRASH], [CRASH]]), np.array([[1], [0]])
    assert pictures.visits(node, state_type, mask, 3)[0].tolist() == [1.0, 0.0, 0.0]


def test_places_of_the_nodes():
    expected = [(1 / 2, 0), (1 / 4, -1), (3 / 4, -1), (1 / 8, -2), (3 / 8, -2), (5 / 8, -2), (7 / 8, -2)]
    np.testing.assert_allclose(pictures.places(2, 2), expected)


def test_tasks_of_a_leaf_are_counted_together():
    """Leaf 2 twice: one task's only episode ends there (nodes 0, 2, 5), the other's crashes; leaf 0 is not shown."""
    walk, types = [0, 0, 2, 2, 5, 5, 0], [WAIT, DECISION, WAIT, DECISION, WAIT, LEAF, HOME]
    node = np.zeros((3, 7, 1, 2), int)
    node[1, :, 0, 1] = walk
    state_type = np.full_like(node, CRASH)
    state_type[1, :, 0, 1] = types
    tasks = [{"leaf": 2}, {"leaf": 2}, {"leaf": 0}]
    infos = {"info.node": node, "info.state_type": state_type}
    picture = pictures.trajectories(recorded(tasks, [0], np.zeros((3, 7, 1, 2, 1)), infos=infos, config_path=TREE))
    assert [panel.texts[-1].get_text() for panel in picture.figure.axes] == ["before adaptation", "after 1 update"]
    columns, rows = picture.table
    assert columns == ("goal_leaf", "updates", "node", "share_of_episodes")
    assert {row[2]: row[3] for row in rows if row[:2] == (2, 1)} == {
        0: 1.0, 1: 0.0, 2: 0.5, 3: 0.0, 4: 0.0, 5: 0.5, 6: 0.0, "crash": 0.5
    }  # fmt: skip


def test_a_film_shows_the_way_as_it_was_walked():
    env = envs.make(NAME, 1, **envs.options(NAME, TREE))
    scene = begun(env, pictures.Scene, {"leaf": 2})
    remarks = [scene.view()[1]]
    # wait, decide for the second branch, wait, decide for the first: leaf 2; a step more ends at home.
    for action in (0, 0, 2, 0, 1, 0, 0):
        env.step(np.array([action]))
        scene.follow()
        remarks.append(scene.view()[1])
    assert remarks == ["home", "wait", "decision", "wait", "decision", "wait", "leaf", "home"]
    # The root stands at (1/2, 0), its second child at (3/4, −1), leaf 2, the third of four, at (5/8, −2).
    assert np.allclose([scene.path[0], scene.path[2], scene.path[4], scene.path[6]],
                       [(0.5, 1.0), (0.5, 0.0), (0.75, -1.0), (0.625, -2.0)])  # fmt: skip
    assert len(scene.path) == 7


def test_a_crash_is_a_cross():
    env = envs.make(NAME, 1, **envs.options(NAME, TREE))
    scene = begun(env, pictures.Scene, {"leaf": 0})
    for action in (0, 1):
        env.step(np.array([action]))
        scene.follow()
    picture, remark = scene.view()
    assert remark == "crash"
    # It stands where the wait state was, 0.55 of the way from home to the root, in the colour of the goal.
    x, y = drawing.WIDTH / 2, drawing.HEIGHT / 2 - (0.45 - -0.5) * (drawing.HEIGHT - 56) / 3
    assert np.array_equal(picture[round(y), round(x)], drawing.rgb(drawing.VERMILION))
