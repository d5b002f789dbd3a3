import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rl.envs.ctgraph.environment import CRASH, DECISION, HOME, LEAF, WAIT
from rl.evaluation import runs
from rl.evaluation.task_choice import distinct
from rl.plots import trajectories


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


def evaluation_of(tasks, observations, actions):
    """An evaluation that recorded full episodes [tasks, steps, episodes, updates, ...]."""
    evaluation = runs.Evaluation(None, None)
    episodes = {"observations": observations, "actions": actions, "mask": np.ones(observations.shape[:4])}
    evaluation.__dict__.update(tasks=tasks, episodes=episodes)
    return evaluation


def words_of(figure):
    """The texts of a figure's legends."""
    return [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]


def test_navigation_is_one_episode_a_panel_with_equal_limits_and_the_goal_as_title():
    """Two tasks, two steps, four episodes, three phases; in one phase of one task the agent goes far away."""
    observations = np.random.default_rng(0).uniform(-0.1, 0.1, size=(2, 2, 4, 3, 2))
    observations[1, 1, 0, 2] = (0.3, -2.0)
    actions = np.full_like(observations, 0.05)
    tasks = [{"goal": [0.312, -0.123]}, {"goal": [-0.5, -0.001]}]
    evaluation = evaluation_of(tasks, observations, actions)
    figure = trajectories.navigation(evaluation, [1, 0])
    panels = np.array(figure.axes).reshape(2, 3)
    for row, task in zip(panels, [1, 0], strict=True):
        for updates, panel in enumerate(row):
            path, end, start, goal = (np.column_stack(line.get_data()) for line in panel.lines)
            first = observations[task, :, 0, updates]
            np.testing.assert_allclose(path, [*first, first[-1] + 0.05])
            np.testing.assert_allclose(end, path[-1:])
            assert start.tolist() == [[0, 0]] and goal.tolist() == [tasks[task]["goal"]]
            assert panel.get_aspect() == 1
    assert [row[0].get_title(loc="left") for row in panels] == ["goal −0.50, 0.00", "goal 0.31, −0.12"]
    assert [panel.texts[0].get_text() for panel in panels[0]] == ["before adaptation", "after 1 update",
                                                                  "after 2 updates"]  # fmt: skip
    (limits,) = {panel.get_xlim() + panel.get_ylim() for panel in figure.axes}
    assert limits[:2] == limits[2:] == (-limits[1], limits[1]) and 2.0 < limits[1] < 2.2
    assert words_of(figure) == [["path of an episode", "its end", "start", "goal"]]
    assert not any(panel.get_legend() for panel in figure.axes)


def test_limits_hold_the_square_of_goals():
    still = np.zeros((1, 2, 1, 2, 2))
    figure = trajectories.navigation(evaluation_of([{"goal": [0.5, 0.5]}], still, still), [0])
    assert all(panel.get_xlim() == panel.get_ylim() == (-0.525, 0.525) for panel in figure.axes)


def test_the_legend_of_a_narrow_figure_is_whole():
    still = np.zeros((2, 2, 1, 2, 2))
    figure = trajectories.navigation(evaluation_of([{"goal": [0.5, 0.5]}] * 2, still, still), [0, 1])
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    left, right = legend.get_window_extent().intervalx
    assert 0 <= left < right <= figure.bbox.width


def test_half_cheetahs_position():
    observations = np.zeros((2, 3, 2, 2, 18))
    observations[0, :, 0, 1, trajectories.CHEETAH_X] = (0.0, 1.0, 2.0)
    evaluation = evaluation_of([{"direction": 1}, {"velocity": 1.5}], observations, observations)
    figure = trajectories.cheetah(evaluation, [0, 1])
    assert [panel.get_title() for panel in figure.axes] == ["direction +1", "velocity +1.5"]
    assert [panel.get_ylabel() for panel in figure.axes] == ["position (m)", ""]
    assert words_of(figure) == [["before adaptation", "after 1 update"]]
    mean = figure.axes[0].lines[-1]
    np.testing.assert_allclose(np.column_stack(mean.get_data()), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0)])


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
        ({"goal": [-0.001, -0.006]}, "goal 0.00 −0.01"),
        ({"env_name": "push-v3", "rand_vec": [1.0, 2.0]}, "task 0"),
    ],
)
def test_labels(task, label):
    evaluation = runs.Evaluation(None, None)
    evaluation.__dict__["tasks"] = [task]
    assert evaluation.label(0) == label
