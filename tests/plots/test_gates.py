"""The picture of gates: its intervals, and what it says of its terms."""

from pathlib import Path

import numpy as np
import pytest

from rl.config import Config
from rl.evaluation.runs import Evaluation
from rl.plots import gates


class MadeUp(Evaluation):
    """An evaluation of three tasks, without files."""

    method, environment, probe, tasks = "method", "somewhere", {"tasks": [0, 1, 2]}, [{}] * 3


def of_signs(*tasks):
    """Gates [D, U + 1, 1, H] of one observation, from a string of signs for each task and number of updates."""
    return np.array([[[[1.0 if sign == "+" else -1.0 for sign in signs]] for signs in task] for task in tasks])


# Three tasks, before and after one update, of four units.
SIGNS = of_signs(("++--", "++--"), ("++--", "+++-"), ("++--", "----"))


def drawn(values):
    return gates.draw(MadeUp(Path("nowhere"), Config(), seed=42), {"layer1": values})


def words(figure):
    """Captions of the figure's halves."""
    return " ".join(part.get_supxlabel() for part in figure.subfigs)


def test_intervals_are_over_tasks():
    """Of three tasks resampled, one may be drawn thrice: with chance 1/27 each, above 2.5%; a pair twice or thrice."""
    found = gates.intervals(SIGNS)
    # Negative after the update: 2/4, 1/4 and 4/4 of the units, and before it 2/4 in each task.
    np.testing.assert_allclose(found["negative"], ([2 / 4, 1 / 4], [2 / 4, 4 / 4]))
    np.testing.assert_allclose(found["saturated"], ([1, 1], [1, 1]))
    # Signs changed by the update: 0, 1 and 2 of four.
    np.testing.assert_allclose(found["flips_between_steps"], ([0], [2 / 4]))
    # Signs that differ after the update: tasks 01 1/4, 02 2/4, 12 3/4; before it none.
    np.testing.assert_allclose(found["flips_between_tasks"], ([0, 1 / 4], [0, 3 / 4]))


def test_equal_tasks_have_no_spread():
    found = gates.intervals(np.repeat(SIGNS[:1], 4, axis=0))
    assert all(np.array_equal(low, high) for low, high in found.values())


def test_two_tasks_have_no_interval():
    assert gates.intervals(SIGNS[:2]) == {}
    assert "fewer than 3 tasks: no intervals" in words(drawn(SIGNS[:2]))


def test_one_task_has_no_pairs_and_many_layers_have_rows():
    figure = drawn(SIGNS[:1])
    assert "one task: no pairs" in [text.get_text() for panel in figure.axes for text in panel.texts]
    layers = {f"layer{number}": SIGNS for number in range(1, 8)}
    many = gates.draw(MadeUp(Path("nowhere"), Config(), seed=42), layers)
    assert len({axis.get_subplotspec().rowspan.start for axis in many.subfigs[1].axes if axis.get_images()}) == 3


def test_intervals_are_drawn():
    figure = drawn(SIGNS)
    assert "95% intervals over tasks" in words(figure)
    shares, tasks, steps = figure.subfigs[0].axes
    ends = {
        panel: [segment[:, 1].tolist() for lines in panel.collections for segment in lines.get_segments()]
        for panel in (shares, tasks, steps)
    }
    assert ends[tasks] == [[0, 0], [1 / 4, 3 / 4]] and ends[steps] == [[0, 2 / 4]]
    # Negative, saturated, and the units whose sign never changes, which have no interval: the last one of four.
    assert ends[shares] == [[1 / 4, 1], [1, 1], [1 / 4, 1 / 4]]
    assert [bar.get_height() for bar in shares.patches] == pytest.approx([7 / 12, 1, 1 / 4])


def test_terms_are_explained():
    figure = drawn(SIGNS)
    for term in ("gate:", "negative:", "saturated:", "sign never changes:"):
        assert term in words(figure)
    shares, tasks, steps = figure.subfigs[0].axes
    assert [label.get_text() for label in shares.get_xticklabels()] == [
        "negative\n(g < 0)", "saturated\n(|g| > 0.99)", "sign never\nchanges"
    ]  # fmt: skip
    assert "differs between two tasks" in tasks.get_ylabel() and "this update changes" in steps.get_ylabel()
