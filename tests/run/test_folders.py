import dataclasses
import fcntl
import json
import os
from datetime import datetime

import pytest
import torch

import rl.run.folders
from rl.config import Config, load_config
from rl.errors import UserError
from rl.files import write_text
from rl.run import config_file
from rl.run.folders import FolderError, Folders, run_name
from tests.support.helpers import small_policy


def config(tmp_path, **options):
    return Config(logdir=str(tmp_path / "logs"), savedir=str(tmp_path / "saves"), **options)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_run_names_are_the_published_ones():
    now = datetime(2021, 3, 4, 5, 6, 7)
    plain = Config(num_context_params=5, seed=1, fast_lr=0.5, first_order=True)
    assert run_name(plain, now) == "5_seed=1fo=Truelr=0.5tau=1.0_2021-03-04_05-06-07"
    assert run_name(dataclasses.replace(plain, expname="try"), now).endswith("_05-06-07_try")


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2021, 3, 4, 5, 6, 7)

    monkeypatch.setattr(rl.run.folders, "datetime", Frozen)
    runs = [Folders.make(config(tmp_path)) for _ in range(3)]
    assert len({run.logs for run in runs}) == len({run.saves for run in runs}) == 3
    assert all(run.logs.is_dir() and run.saves.is_dir() and run.logs.name == run.saves.name for run in runs)


def test_a_link_to_nowhere_is_told_and_not_tried_for_ever(tmp_path):
    (tmp_path / "logs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FolderError, match=r"logs.*: cannot make the run's folder: File exists"):
        Folders.make(config(tmp_path), suffix="_test")


def test_folders_follow_the_published_layout(tmp_path):
    run = Folders.make(config(tmp_path, neuromodulation=True, env_name="my.module:Thing-v0"))
    assert run.logs.parent == tmp_path / "logs" / "my.module_Thing-v0" / "nm_cavia"
    assert run.saves.parent == tmp_path / "saves" / "my.module_Thing-v0" / "nm_cavia"
    assert run.policy(7) == run.saves / "policy-7.pt"
    # Evaluations write beside the logs alone.
    run = Folders.make(config(tmp_path / "of", maml=True), suffix="_test")
    assert run.logs.parent == tmp_path / "of" / "logs" / "2DNavigation-v0" / "maml_test"
    assert not (tmp_path / "of" / "saves").exists()


@pytest.mark.parametrize("blocked", ["logs", "saves"])
def test_where_no_folder_can_be_made_nothing_is_left_behind(tmp_path, blocked):
    (tmp_path / blocked).write_text("a file")
    with pytest.raises(UserError, match="cannot make the run's folder"):
        Folders.make(config(tmp_path))
    assert files(tmp_path) == [blocked]
    other = {"logs": "saves", "saves": "logs"}[blocked]
    assert not list((tmp_path / other).rglob("*seed=*"))


def test_a_claim_locks_files_that_are_open_for_writing(tmp_path):
    """Of the locks of folders, NFS does not tell the other machines."""
    run = Folders.make(config(tmp_path))
    places = [run.logs / ".lock", run.saves / ".lock"]
    for _ in range(2):
        with run.claimed():
            assert [locked(path) for path in places] == [True, True]
        # The files stay: were one removed, others could lock it and one that is new at once.
        assert [locked(path) for path in places] == [False, False]


def locked(path):
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_config_json_holds_everything(tmp_path):
    """With a copy of the environment's file beside it."""
    source, folder = tmp_path / "graph.json", tmp_path / "run"
    source.write_text("{}")
    folder.mkdir()
    options = config(tmp_path, seed=9, env_config_path=str(source))
    config_file.write(folder, options, small_policy())
    content = json.loads((folder / "config.json").read_text())
    assert {name: content[name] for name in dataclasses.asdict(options)} == dataclasses.asdict(options)
    assert content["input_size"] == 3 and content["output_size"] == 2
    assert content["versions"]["torch"] == torch.__version__ and content["versions"]["python"]
    assert "git_commit" in content
    assert load_config(folder / "config.json")[0] == options
    assert files(folder) == ["config.json", "graph.json"] and (folder / "graph.json").read_text() == "{}"


def test_an_environments_file_named_config_json_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"another name than config\.json"):
        config(tmp_path, env_config_path=str(tmp_path / "config.json"))


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "first")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "second")
    assert path.read_text() == "first"
    monkeypatch.undo()
    write_text(path, "third")
    assert path.read_text() == "third" and files(tmp_path) == ["text"]
