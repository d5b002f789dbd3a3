import numpy as np

from rl import drawing, envs
from rl.envs.navigation import pictures
from tests.support.recorded import recorded
from tests.support.scenes import begun


def test_positions_end_with_the_clipped_last_move():
    observations = np.array([[0.0, 0.0], [0.1, 0.05], [0.0, 0.0]])
    actions = np.array([[0.3, 0.05], [-0.02, -7.0], [0.0, 0.0]])
    found = pictures.positions(observations, actions, np.array([1, 1, 0]))
    np.testing.assert_allclose(found, [[0, 0], [0.1, 0.05], [0.08, -0.05]])


def test_one_episode_a_panel_with_equal_limits_and_the_goal_as_title():
    """Two tasks, two steps, four episodes after each of 0 to 2 updates; once the agent goes far away."""
    observations = np.random.default_rng(0).uniform(-0.1, 0.1, size=(2, 2, 4, 3, 2))
    observations[1, 1, 0, 2] = (0.3, -2.0)
    tasks = [{"goal": [0.312, -0.123]}, {"goal": [-0.5, -0.001]}]
    figure = pictures.trajectories(recorded(tasks, [1, 0], observations, np.full_like(observations, 0.05))).figure
    panels = np.array(figure.axes).reshape(2, 3)
    for row, task in zip(panels, [1, 0], strict=True):
        for updates, panel in enumerate(row):
            path, end, start, goal = (np.column_stack(line.get_data()) for line in panel.lines)
            first = observations[task, :, 0, updates]
            np.testing.assert_allclose(path, [*first, first[-1] + 0.05])
            np.testing.assert_allclose(end, path[-1:])
            assert start.tolist() == [[0, 0]] and goal.tolist() == [tasks[task]["goal"]]
            assert panel.get_aspect() == 1
    assert [row[0].get_title(loc="left") for row in panels] == ["goal (−0.50, 0.00)", "goal (0.31, −0.12)"]
    assert [panel.texts[0].get_text() for panel in panels[0]] == ["before adaptation", "after 1 update",
                                                                  "after 2 updates"]  # fmt: skip
    (limits,) = {panel.get_xlim() + panel.get_ylim() for panel in figure.axes}
    assert limits[:2] == limits[2:] == (-limits[1], limits[1]) and 2.0 < limits[1] < 2.2
    assert panels[0, 0].get_legend_handles_labels()[1] == ["path of an episode", "its end", "start", "goal"]


def test_limits_hold_the_square_of_goals():
    figure = pictures.trajectories(recorded([{"goal": [0.5, 0.5]}], [0], np.zeros((1, 2, 1, 2, 2)))).figure
    assert all(panel.get_xlim() == panel.get_ylim() == (-0.525, 0.525) for panel in figure.axes)


def test_a_film_shows_the_point_where_the_agent_is():
    env = envs.make("2DNavigation-v0", 1)
    scene = begun(env, pictures.Scene, {"goal": [0.3, -0.4]})
    for _ in range(3):
        env.step(np.array([[-0.1, 0.1]], np.float32))
        scene.follow()
    picture, remark = scene.view()
    # (−0.3, 0.3) lies √(0.6² + 0.7²) = 0.92 from the goal; half of the height is 0.65.
    assert remark == "distance 0.92"
    scale = drawing.HEIGHT / 2 / 0.65
    for (x, y), colour in (((-0.3, 0.3), drawing.BLUE), ((0.3, -0.4), drawing.VERMILION)):
        assert np.array_equal(picture[round(120 - y * scale), round(160 + x * scale)], drawing.rgb(colour))
