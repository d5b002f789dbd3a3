"""The maps of similarity: what is drawn, and in which colours."""

from pathlib import Path

import numpy as np
import pytest

from rl.config import Config
from rl.evaluation.runs import Evaluation
from rl.evaluation.similarity import Similarity
from rl.plots import representation


class MadeUp(Evaluation):
    """An evaluation of three tasks, without files."""

    method, environment, probe, tasks = "method", "somewhere", {"tasks": [0, 1, 2]}, [{}] * 3


def found(*pairs):
    """A `Similarity` of three tasks whose pairs 01, 02, 12 have these values."""
    first, second, third = pairs
    matrix = np.array([[1.0, first, second], [first, 1.0, third], [second, third, 1.0]])
    return Similarity(matrix, float(np.mean(pairs)), (min(pairs), max(pairs)), 0.01, 0.02)


def drawn(rows, evaluations=1):
    """The maps of a figure, a list of images for each row, and its other axes: the scales."""
    figure = representation.draw([MadeUp(Path("nowhere"), Config(), seed=42)] * evaluations, rows)
    columns = len(next(iter(rows.values()))) - 1
    count = len(rows) * columns
    maps = np.array([panel.images[0] for panel in figure.axes[:count]]).reshape(len(rows), columns)
    return maps, figure


ALIKE = found(1.0, 1.0, 1.0)
ROWS = {
    ("layer1.modulators", 0): [ALIKE, found(0.2, 0.5, 0.9)],
    ("layer1.output", 0): [ALIKE, found(0.96, 0.98, 0.97)],
}


def test_the_column_that_is_always_1_is_left_out():
    rows = {("layer1.output", 0): [ALIKE, found(0.5, 0.6, 0.7), found(0.1, 0.2, 0.3)]}
    maps, figure = drawn(rows)
    assert maps.shape == (1, 2)
    headers = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert headers == ["after 1 update", "after 2 updates"]
    assert "0.60 [0.50, 0.70]" in figure.axes[0].get_title() and "0.20 [0.10, 0.30]" in figure.axes[1].get_title()


def test_the_colours_span_what_differs_between_tasks():
    maps, figure = drawn(ROWS)
    assert [image.get_clim() for image in maps[:, 0]] == [(0.2, 0.9), (0.96, 0.98)]
    # A scale for each; a task with itself, which is 1, has no colour.
    assert len(figure.axes) == 2 + 2
    for image in maps.flat:
        assert np.ma.getmaskarray(image.get_array()).tolist() == np.eye(3, dtype=bool).tolist()
    np.testing.assert_array_equal(maps[1, 0].get_array().compressed(), [0.96, 0.98, 0.96, 0.97, 0.98, 0.97])


def test_two_policies_share_the_scale_of_an_activation():
    rows = {("layer1.output", 0): [ALIKE, found(0.3, 0.5, 0.6)], ("layer1.output", 1): [ALIKE, found(0.97, 0.98, 0.99)]}
    maps, figure = drawn(rows, evaluations=2)
    assert [image.get_clim() for image in maps[:, 0]] == [(0.3, 0.99)] * 2
    assert len(figure.axes) == 2 + 1


def test_differences_of_rounding_have_one_colour():
    assert representation.limits([found(1.0, 1.0 - 1e-7, 1.0).cka]) == (0.99, 1.0)
    undefined = np.full((2, 2), np.nan)
    assert representation.limits([undefined]) == (0.0, 1.0)
    low, high = representation.limits([undefined, found(0.5, np.nan, 0.7).cka])
    assert (low, high) == pytest.approx((0.5, 0.7))
