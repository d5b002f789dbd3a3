"""Learning curves of made-up runs with known numbers."""

import csv
import dataclasses
import json
import struct

import numpy as np
import pytest

from rl.arguments import Config
from rl.errors import UserError
from rl.logger import Logger
from rl.plots import curves, runs
from rl.plots.references import read_reference


def made_up_run(folder, seed, values, **options):
    """A run's folder whose `after_update` has `values` in iterations 0, 1, …"""
    folder.mkdir()
    config = dataclasses.asdict(Config(seed=seed, **options))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    logger = Logger(folder)
    for iteration, value in enumerate(values):
        logger.scalar("running_returns/after_update", value, iteration)
        logger.scalar("evaluation_rew/avg_rew 2", 10 * value, iteration)
    logger.close()
    return folder


@pytest.fixture
def two_groups(tmp_path):
    """Seeds 1, 2, 3 of plain CAVIA and 2, 3, 4 of first-order CAVIA, ten iterations of one value each."""
    plain = [made_up_run(tmp_path / f"plain{seed}", seed, [value] * 10) for seed, value in ((1, 0), (2, 1), (3, 5))]
    first = [
        made_up_run(tmp_path / f"first{seed}", seed, [value] * 10, first_order=True)
        for seed, value in ((2, 0), (3, 6), (4, 9))
    ]
    return plain + first


def table(path):
    with open(f"{path}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_groups_means_and_intervals(two_groups, tmp_path):
    _, lines = curves.curves(two_groups, tmp_path / "out")
    rows = [row for row in table(tmp_path / "out") if row["iteration"] == "9"]
    assert [(row["group"], row["seeds"], float(row["value"])) for row in rows] == [
        ("cavia", "3", 2.0), ("cavia, first order True", "3", 5.0)
    ]  # fmt: skip
    # Of three values the interval of the mean goes from the lowest to the highest.
    assert [(float(row["low_95"]), float(row["high_95"])) for row in rows] == [(0.0, 5.0), (0.0, 9.0)]
    # Seeds 2 and 3 are shared: 1 − 0 and 5 − 6; mean 0, one of two above.
    (line,) = (line for line in lines if "probability" in line)
    assert "cavia − cavia, first order True = 0 [-1, 1], probability of improvement 0.50 [0.00, 1.00], 2 paired" in line


def test_what_changes_no_result_makes_no_group(tmp_path):
    folders = [
        made_up_run(tmp_path / "a", 1, [1.0], num_workers=1, expname="a", logdir="x"),
        made_up_run(tmp_path / "b", 2, [3.0], num_workers=2, expname="b", logdir="y"),
    ]
    curves.curves(folders, tmp_path / "out")
    (row,) = table(tmp_path / "out")
    assert (row["group"], row["seeds"], row["value"]) == ("cavia", "2", "2.0")


def test_group_by(two_groups, tmp_path):
    curves.curves(two_groups, tmp_path / "out", group_by=("method", "first_order"))
    assert {row["group"] for row in table(tmp_path / "out")} == {"cavia", "cavia, first order True"}
    curves.curves(two_groups[:3] + two_groups[-1:], tmp_path / "out", group_by=("method",))
    assert {(row["group"], row["seeds"]) for row in table(tmp_path / "out")} == {("cavia", "4")}
    with pytest.raises(UserError, match="has the seed 2 of"):
        curves.curves(two_groups, tmp_path / "out", group_by=("method",))


def test_interquartile_mean(tmp_path):
    """Of 0, 1, 2, 100 the lowest and the highest are left out."""
    folders = [made_up_run(tmp_path / str(seed), seed, [value]) for seed, value in enumerate((0.0, 1.0, 2.0, 100.0))]
    curves.curves(folders, tmp_path / "out", statistic="iqm")
    (row,) = table(tmp_path / "out")
    assert float(row["value"]) == 1.5


def test_iterations_that_all_runs_have(tmp_path):
    folders = [made_up_run(tmp_path / "a", 1, [1.0, 2.0, 3.0]), made_up_run(tmp_path / "b", 2, [3.0, 4.0])]
    curves.curves(folders, tmp_path / "out")
    assert [(row["iteration"], float(row["value"])) for row in table(tmp_path / "out")] == [("0", 2.0), ("1", 3.0)]


def test_smoothing():
    np.testing.assert_allclose(curves.smoothed(np.array([2.0, 4.0, 9.0, 2.0]), 3), [2.0, 3.0, 5.0, 5.0])
    np.testing.assert_array_equal(curves.smoothed(np.array([2.0, 4.0]), 1), [2.0, 4.0])


def test_only_references_of_every_iteration_are_smoothed(tmp_path):
    content = {"environment": "e", "method": "m", "source": "s", "after_update": [0, 2, 4]}
    for name, iterations in (("dense", [5, 6, 7]), ("sparse", [0, 25, 50])):
        (tmp_path / name).write_text(json.dumps(content | {"iteration": iterations}), encoding="utf-8")
    dense, sparse = (read_reference(tmp_path / name) for name in ("dense", "sparse"))
    np.testing.assert_allclose(curves.smoothed_reference(dense, 2).curves["after_update"], [0, 1, 3])
    np.testing.assert_allclose(curves.smoothed_reference(sparse, 2).curves["after_update"], [0, 2, 4])


def test_the_end_of_a_run_is_its_last_tenth():
    assert curves.last_tenth(np.arange(20.0)) == 18.5
    assert curves.last_tenth(np.array([3.0, 4.0])) == 4.0


def test_a_cut_event_file_is_read_as_far_as_it_goes(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0, 2.0, 3.0])
    (file,) = folder.glob("events*")
    whole = runs.read_run(folder).curve("evaluation_rew/avg_rew_2")
    assert whole[0].tolist() == [0, 1, 2] and whole[1].tolist() == [10.0, 20.0, 30.0]
    file.write_bytes(file.read_bytes()[:-3])
    assert runs.read_run(folder).curve("evaluation_rew/avg_rew_2")[0].tolist() == [0, 1]


def test_files_that_hold_no_events(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0])
    (folder / "events.out.tfevents.9").write_bytes(struct.pack("<Q", 4) + b"\0" * 4 + b"\xff" * 4 + b"\0" * 4)
    with pytest.raises(UserError, match="expected TensorBoard events, found something else"):
        curves.curves([folder], tmp_path / "out")


def test_a_resumed_runs_files_are_joined_later_ones_counting(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0, 2.0])
    (file,) = folder.glob("events*")
    file.rename(folder / "events.out.tfevents.1")
    other = made_up_run(tmp_path / "other", 1, [7.0, 8.0, 9.0])
    next(other.glob("events*")).rename(folder / "events.out.tfevents.2")
    iterations, values = runs.read_run(folder).curve("running_returns/after_update")
    assert iterations.tolist() == [0, 1, 2] and values.tolist() == [7.0, 8.0, 9.0]
