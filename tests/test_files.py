"""What is written stays in its folder, whole or not at all, and replaces nothing of anybody else's."""

import os
import stat

import numpy as np
import pytest

from rl import files
from rl.config import Config
from rl.errors import UserError
from rl.run.folders import LOCK, Folders
from rl.run.metrics import PROGRESS, Progress, TensorBoard
from tests.support.helpers import only_run


@pytest.fixture
def victim(tmp_path):
    """A file outside of the folder of a run, to which a link in that folder leads."""
    path = tmp_path / "victim"
    path.write_text("precious\n")
    yield path
    assert path.read_text() == "precious\n"


def folder_with(tmp_path, victim, *names):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(victim)
    return folder


def test_a_link_under_any_name_is_replaced_and_never_followed(tmp_path, victim):
    folder = folder_with(tmp_path, victim, "text", "text.tmp", "array.npy", "array.npy.tmp")
    files.write_text(folder / "text", "own")
    files.save_array(folder / "array.npy", np.zeros(3))
    assert (folder / "text").read_text() == "own" and not (folder / "text").is_symlink()
    assert stat.S_IMODE((folder / "text").stat().st_mode) == 0o666 & ~umask()
    assert {path.name for path in folder.iterdir()} == {"text", "text.tmp", "array.npy", "array.npy.tmp"}


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("victim", path)])
@pytest.mark.parametrize("name", [LOCK, PROGRESS])
def test_what_is_written_in_place_is_a_regular_file(tmp_path, victim, name, make):
    sink = Progress(tmp_path)
    (tmp_path / PROGRESS).unlink()
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: expected a file that can be written"):
        if name == LOCK:
            with Folders(tmp_path, tmp_path).claimed():
                pass
        else:
            sink.write(0, {})


def test_nobody_can_foresee_the_name_of_an_event_file(tmp_path, victim, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        TensorBoard(folder).close()
    names = {path.name for path in tmp_path.glob("*/events*")}
    assert len(names) == 2


@pytest.mark.parametrize("name", ["gs:x", "s3:x", "gs://x", "s3://x/y"])
def test_a_log_folder_whose_name_means_a_cloud_elsewhere_is_local(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folders = Folders.make(Config(logdir=name))
    TensorBoard(folders.logs).close()
    assert len(list((tmp_path / name).glob("*/*/*/events.out.tfevents.*"))) == 1


def test_what_a_killed_process_has_begun_to_write_is_removed_by_the_next(tmp_path):
    folders = Folders(tmp_path / "logs", tmp_path / "saves")
    for folder in (folders.logs, folders.saves):
        folder.mkdir()
        with files.replacing(folder / "state.pt") as temporary:
            temporary.write_bytes(b"half")
            os.link(temporary, left := folder / f".{'a' * 16}.tmp")
        (folder / ".mine.tmp").touch()
    with folders.claimed():
        assert not left.exists() and (folders.logs / ".mine.tmp").exists()
        assert {path.name for path in folders.saves.iterdir()} == {"state.pt", ".mine.tmp", LOCK}


def test_an_environments_own_file_may_not_be_named_as_one_of_a_run(tiny):
    run, evaluation = tiny.run("graph"), tiny.evaluation("graph")
    folders = run, only_run(tiny.folder / "graph" / "saves"), evaluation
    names = {path.name for folder in folders for path in folder.iterdir()} - {"ctgraph_d2.json"}
    assert {"config.json", "state.pt", "results.json", "probe.npz", "adaptation.png", LOCK} < names
    for name in [*names, "flight-3.npz", "success_metric.npy", "Results.JSON", "events.out.tfevents.x"]:
        with pytest.raises(UserError, match=f"--env-config-path: expected a file of another name than {name}"):
            Config(env_config_path=f"somewhere/{name}")
    assert Config(env_config_path="somewhere/ctgraph_d2.json")
