"""What a run logs: progress.csv, TensorBoard's files, Weights & Biases."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.proto.layout_pb2 import Layout
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from rl.config import NEUTRAL, Config, parse_options
from rl.errors import UserError
from rl.evaluation.evaluate import Summary
from rl.main import program as main
from rl.run import metrics
from rl.run.checkpoint import Counters
from rl.sampling.episodes import Episodes
from tests.support.forked import FEW
from tests.support.helpers import only_run
from tests.torture import Program, into, progress

TAG, SPACED = "trpo/kl", "evaluation_rew/avg_rew 0"


def written(sink, iterations, **others):
    """Write metrics of some iterations; an evaluation every second one."""
    for iteration in iterations:
        found = {TAG: iteration / 3} | ({SPACED: -0.1 * iteration} if iteration % 2 == 0 else {})
        sink.write(iteration, found | others)
    sink.close()


def test_a_row_an_iteration_and_a_column_a_tag(tmp_path):
    written(metrics.Progress(tmp_path), range(4))
    table = progress(tmp_path)
    # Every digit comes back; what was not measured is empty.
    assert list(table[TAG]) == [0, 1 / 3, 2 / 3, 1]
    assert list(table[SPACED].dropna().items()) == [(0, 0), (2, -0.2)]


def test_a_new_column_leaves_earlier_rows_empty(tmp_path):
    sink = metrics.Progress(tmp_path)
    sink.write(0, {TAG: 1.0})
    sink.write(1, {TAG: 2.0, "new, with a comma": 3.0})
    sink.write(2, {})
    sink.close()
    table = progress(tmp_path)
    assert list(table.columns) == [TAG, "new, with a comma"]
    np.testing.assert_array_equal(table, [[1, np.nan], [2, 3], [np.nan, np.nan]])


@pytest.mark.parametrize("rest", ["", "3", "3,1.", "3,1.0", "3,1.0,2.0\n4,1.0,2.0\n", "3,1.0,2.0,9.0\n", "\n,,"])
def test_what_a_crash_left_behind_the_last_state_is_dropped(tmp_path, rest):
    """Whole rows of iterations that are computed again, and a row that was cut."""
    written(metrics.Progress(tmp_path), range(3))
    before = (tmp_path / metrics.PROGRESS).read_text()
    (tmp_path / metrics.PROGRESS).write_text(before + rest)
    sink = metrics.Progress(tmp_path, iteration=3)
    assert (tmp_path / metrics.PROGRESS).read_text() == before
    written(sink, range(3, 5))
    assert len(progress(tmp_path)) == 5


@pytest.mark.parametrize("left", [None, b"", b"iteration,trpo/kl\n0,1.0\n", b"\xff\xfe"])
def test_rows_that_are_missing_are_refused(tmp_path, left):
    if left is not None:
        (tmp_path / metrics.PROGRESS).write_bytes(left)
    with pytest.raises(UserError, match=metrics.PROGRESS) as caught:
        metrics.Progress(tmp_path, iteration=2)
    assert "\n" not in str(caught.value)
    assert left is None or (tmp_path / metrics.PROGRESS).read_bytes() == left


def curves(folder):
    """What TensorBoard shows of a folder: tag -> [(iteration, value)]."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_tensorboard_shows_the_published_tags_and_no_iteration_twice(tmp_path, cut):
    """As after a crash, which may have cut the last record."""
    written(metrics.TensorBoard(tmp_path), range(4), attempt=1)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    written(metrics.TensorBoard(tmp_path, purge_step=2), range(2, 5), attempt=2)
    shown = curves(tmp_path)
    assert shown[TAG] == [(iteration, pytest.approx(iteration / 3)) for iteration in range(5)]
    assert [iteration for iteration, _ in shown[SPACED]] == [0, 2, 4]
    assert shown["attempt"] == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2)]


def test_tensorboard_forgets_a_first_iteration_that_crashed(tmp_path):
    written(metrics.TensorBoard(tmp_path, purge_step=0), range(1), attempt=1)
    written(metrics.TensorBoard(tmp_path, purge_step=0), range(2), attempt=2)
    assert curves(tmp_path)["attempt"] == [(0, 2), (1, 2)]


def test_both_files_of_a_run_hold_the_same(tmp_path):
    assert main([*FEW, "--num-workers", "0", *into(tmp_path)]) == 0
    logs = only_run(tmp_path / "logs")
    table, shown = progress(logs), curves(logs)
    assert set(table.columns) == set(shown)
    for tag in table:
        values = table[tag].dropna()
        assert shown[tag] == list(zip(values.index, np.float32(values), strict=True)), tag


def test_charts():
    (value,) = metrics.charts(2).value
    layout = Layout.FromString(value.tensor.string_val[0])
    charts = [list(chart.multiline.tag) for chart in layout.category[0].chart]
    assert charts[0] == ["running_returns/before_update", "running_returns/after_update"]
    assert charts[1] == [f"evaluation_rew/avg_rew {updates}" for updates in range(3)]
    assert charts[3] == list(metrics.SUCCESS)
    assert [category.title for category in layout.category] == ["returns", "outer step", "time"]


def test_training_reports_success_where_the_environment_does():
    """Of four episodes two succeed at the first step and one of these at the last; afterwards all do."""
    ones = np.ones((2, 3, 2))
    vectors, some, all_of_them = np.ones((2, 3, 2, 1), np.float32), np.zeros_like(ones), ones
    some[0, 0] = 1
    some[0, 2, 0] = 1
    before, after = (
        Summary.of(Episodes(vectors, vectors, ones, ones, {"success": success})) for success in (some, all_of_them)
    )
    found = metrics.training([before, after], "trpo", {}, {"sampling": 1.0}, Counters())
    assert [found[tag] for tag in metrics.SUCCESS] == [0.5, 1.0]
    assert next(iter(found)) == "running_returns/before_update"


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_tensorboard_shows_pictures_and_films(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    Image.new("RGB", (4, 3), "red").save(path)
    board = metrics.TensorBoard(tmp_path)
    board.show("adaptation", path)
    board.close()
    (image,) = EventAccumulator(str(tmp_path)).Reload().Images("adaptation")
    assert (image.width, image.height, image.encoded_image_string) == (4, 3, path.read_bytes())


def test_hparams():
    config = parse_options(["--neuromodulation", "--num-test-steps", "2"])
    experiment, start = metrics.hparams(config)
    assert experiment.value[0].tag == "_hparams_/experiment" and start.value[0].tag == "_hparams_/session_start_info"
    described = experiment.value[0].metadata.plugin_data.content
    for word in (b"running_returns/after_update", b"evaluation_rew/avg_rew 2", b"evaluation_success/any 2", b"fast_lr"):
        assert word in described
    names = {field.name for field in dataclasses.fields(config)} - NEUTRAL
    session = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content).session_start_info
    assert set(session.hparams) == names | {"method"}


# --- Weights & Biases ---


class NoKey(Exception):
    pass


def test_weights_and_biases_gets_what_is_logged_under_the_run_s_name(tmp_path, monkeypatch):
    calls = []
    run = SimpleNamespace(log=lambda found, step: calls.append((found, step)), finish=lambda: calls.append("finish"))
    stand_in = SimpleNamespace(init=lambda **given: calls.append(given) or run, Error=NoKey)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    folder = tmp_path / "2_seed=42"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for sink in metrics.sinks(folder, Config(wandb="mine")):
        sink.write(3, {TAG: 0.5})
        sink.close()
    given, *rest = calls
    assert (given["project"], given["name"], given["resume"]) == ("mine", "2_seed=42", "allow")
    assert given["id"] == metrics.identity(folder) and given["id"].startswith("2_seed-42-")
    assert given["dir"] == folder and given["config"]["fast_lr"] == 1.0
    assert rest == [({TAG: 0.5}, 3), "finish"]


def test_runs_begun_at_once_have_names_of_their_own_there_which_stay(tmp_path):
    """Folders of one name lie below other environments, methods and log folders."""
    contents = {"a": {"env_name": "A", "num_batches": 3}, "b": {"env_name": "B", "num_batches": 3}}
    for place, content in contents.items():
        (tmp_path / place / "run").mkdir(parents=True)
        (tmp_path / place / "run/config.json").write_text(json.dumps(content), encoding="utf-8")
    first, second = (metrics.identity(tmp_path / place / "run") for place in contents)
    assert first != second
    (tmp_path / "a/run/config.json").write_text(json.dumps(contents["a"] | {"num_batches": 9}), encoding="utf-8")
    assert metrics.identity(tmp_path / "a/run") == first


@pytest.mark.parametrize("stand_in", [None, SimpleNamespace()], ids=["missing", "a folder of that name"])
def test_without_its_package_nothing_is_written(tmp_path, monkeypatch, capsys, stand_in):
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    assert main([*FEW, "--num-workers", "0", "--wandb", "mine", *into(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("main.py: --wandb: ") and "wandb is not installed" in line
    assert not list(tmp_path.iterdir())


def test_where_nobody_is_logged_in_it_is_one_line(tmp_path, monkeypatch, capsys):
    def init(**_):
        raise NoKey("no API key;\nlog in")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=NoKey))
    assert main([*FEW, "--num-workers", "0", "--wandb", "mine", *into(tmp_path)]) == 1
    assert capsys.readouterr().err == "main.py: --wandb mine: no API key; log in\n"


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path):
    line = [*FEW, "--num-workers", "0", "--wandb", "mine", *into(tmp_path)]
    program = Program(tmp_path, *line, WANDB_MODE="offline", WANDB_SILENT="true")
    assert program.finish() == 0, program.errors
    logs = only_run(tmp_path / "logs")
    (path,) = logs.glob("wandb/offline-run-*/run-*.wandb")
    content = path.read_bytes()
    assert all(tag.encode() in content for tag in pandas.read_csv(logs / "progress.csv").columns[1:])
