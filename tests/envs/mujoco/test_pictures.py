import numpy as np

from rl.envs.mujoco import pictures
from tests.support.recorded import recorded


def test_position_against_time():
    observations = np.zeros((2, 3, 2, 2, 20))
    observations[0, :, 0, 1, pictures.X] = (0.0, 1.0, 2.0)
    found = recorded([{"direction": 1}, {"direction": -1}], [0, 1], observations)._replace(labels=["there", "back"])
    found.episodes["mask"][1, 2, 1, 0] = 0
    figure = pictures.trajectories(found).figure
    assert [panel.get_title() for panel in figure.axes] == ["there", "back"]
    assert [panel.get_ylabel() for panel in figure.axes] == ["position (m)", ""]
    assert figure.axes[0].get_legend_handles_labels()[1] == ["before adaptation", "after 1 update"]
    mean = figure.axes[0].lines[-1]
    np.testing.assert_allclose(np.column_stack(mean.get_data()), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0)])
    # One of two episodes ends after two steps: so does the mean.
    assert [len(line.get_xdata()) for line in figure.axes[1].lines] == [3, 3, 2, 3, 3, 3]


def test_distance_from_a_goal_in_the_plane():
    observations = np.zeros((1, 2, 1, 2, 125))
    observations[0, 1, 0, 1, [pictures.X, pictures.Y]] = (3.0, 0.0)
    figure = pictures.trajectories(recorded([{"goal": [3.0, 4.0]}], [0], observations)).figure
    # √(3² + 4²) = 5 from the origin, and 4 after the step.
    assert figure.axes[0].get_ylabel() == "distance from the goal (m)"
    assert figure.axes[0].lines[1].get_ydata().tolist() == [5.0, 5.0]
    assert figure.axes[0].lines[-1].get_ydata().tolist() == [5.0, 4.0]
