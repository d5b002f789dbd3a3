import dataclasses
import fcntl
import json
import pickle
from datetime import datetime

import numpy as np
import pytest
import torch

import rl.run.folders
from rl.config import Config, load_config
from rl.errors import UserError
from rl.files import write_text
from rl.run.folders import FolderError, Folders, load_policy, os, run_name, save_policy, write_config
from tests.support.helpers import COMBINATIONS, random_params, small_policy


def config(tmp_path, **options):
    return Config(logdir=str(tmp_path / "logs"), savedir=str(tmp_path / "saves"), **options)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("head, layer, adaptation", COMBINATIONS)
def test_a_policy_comes_back_from_its_file(tmp_path, head, layer, adaptation):
    policy = small_policy(head, layer, adaptation)
    params = random_params(policy, dtype=torch.float32)
    path = tmp_path / "policy-0.pt"
    save_policy(path, params)
    assert files(tmp_path) == ["policy-0.pt"]
    loaded = load_policy(path, policy)
    assert list(loaded) == list(params)
    assert all(torch.equal(loaded[name], params[name]) for name in params)


def test_a_saved_policy_is_a_plain_state_dict(tmp_path):
    policy = small_policy()
    params = {name: value.requires_grad_() for name, value in random_params(policy, dtype=torch.float32).items()}
    save_policy(tmp_path / "policy.pt", params)
    content = torch.load(tmp_path / "policy.pt", weights_only=True)
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in content.values())


def test_a_published_state_dict_loads_whatever_its_order_and_type(tmp_path):
    policy = small_policy("normal", "hard")
    params = random_params(policy)
    path = tmp_path / "published.pt"
    torch.save(dict(reversed(params.items())), path)
    loaded = load_policy(path, policy)
    assert list(loaded) == list(params)
    assert all(torch.equal(loaded[name], params[name].float()) for name in params)


def test_a_policy_of_another_shape_says_what_was_expected_and_found(tmp_path):
    path = tmp_path / "policy.pt"
    save_policy(path, random_params(small_policy(hidden_sizes=(6, 4)), dtype=torch.float32))
    with pytest.raises(UserError) as caught:
        load_policy(path, small_policy())
    text = str(caught.value)
    assert "policy.pt" in text and "\n" not in text
    assert "layer1.std.weight: expected 5×5, found 6×5" in text.replace("layer1.weight", "layer1.std.weight")
    assert "layer2.weight: expected 4×5, found 4×6" in text


def test_a_policy_of_another_kind_says_what_is_missing_and_what_is_too_much(tmp_path):
    path = tmp_path / "policy.pt"
    save_policy(path, random_params(small_policy("categorical", hidden_sizes=(5,)), dtype=torch.float32))
    with pytest.raises(UserError) as caught:
        load_policy(path, small_policy("normal", hidden_sizes=(5,)))
    text = str(caught.value)
    for part in ("sigma: expected 2, found nothing", "mu.weight: expected 2×5, found nothing",
                 "layer2.weight: expected nothing, found 2×5"):  # fmt: skip
        assert part in text


def test_many_differences_are_counted(tmp_path):
    path = tmp_path / "policy.pt"
    save_policy(path, {})
    with pytest.raises(UserError, match=r"\(and 3 more\)$"):
        load_policy(path, small_policy())


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_is_refused(tmp_path, save):
    trap, path = tmp_path / "trapped", tmp_path / "policy.pt"
    save({"sigma": Payload(str(trap))}, path)
    with pytest.raises(UserError, match=r"policy.pt: expected a policy's state dict") as caught:
        load_policy(path, small_policy())
    assert not trap.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04", b"no policy\n", b"\x80\x02}q\x00.", b"\x80\x04K\x01.", b"(dp0\n.", b"cos\nsystem\n.", b"0",
        b"\x00" * 64,
    ],
)  # fmt: skip
def test_bytes_that_are_no_policy_are_refused(tmp_path, content):
    path = tmp_path / "policy.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"policy.pt"):
        load_policy(path, small_policy())


def test_random_and_damaged_bytes_are_refused(tmp_path):
    path = tmp_path / "policy.pt"
    policy = small_policy()
    save_policy(path, random_params(policy, dtype=torch.float32))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in range(1, 40):
        path.write_bytes(rng.bytes(length))
        with pytest.raises(UserError):
            load_policy(path, policy)
    for length in rng.integers(1, len(whole), 20):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_policy(path, policy)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"sigma": 3}, torch.zeros(2), "text"])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "policy.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match="expected a state dict"):
        load_policy(path, small_policy())


def test_a_missing_policy_is_refused(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UserError, match=path.name):
            load_policy(path, small_policy())


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
    run = Folders.make(config(tmp_path, neuromodulation=True))
    assert run.logs.parent == tmp_path / "logs" / "2DNavigation-v0" / "nm_cavia"
    assert run.saves.parent == tmp_path / "saves" / "2DNavigation-v0" / "nm_cavia"
    assert run.policy(7) == run.saves / "policy-7.pt"


def test_evaluations_write_beside_the_logs_alone(tmp_path):
    run = Folders.make(config(tmp_path, maml=True), suffix="_test")
    assert run.logs.parent.name == "maml_test" and run.logs.is_dir()
    assert not (tmp_path / "saves").exists()


def test_a_users_environment_has_one_folder(tmp_path):
    run = Folders.make(config(tmp_path, env_name="my.module:Thing-v0"))
    assert run.logs.relative_to(tmp_path / "logs").parts[0] == "my.module_Thing-v0"


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
    options = config(tmp_path, seed=9)
    write_config(tmp_path, options, small_policy())
    content = json.loads((tmp_path / "config.json").read_text())
    assert {name: content[name] for name in dataclasses.asdict(options)} == dataclasses.asdict(options)
    assert content["input_size"] == 3 and content["output_size"] == 2
    assert content["versions"]["torch"] == torch.__version__ and content["versions"]["python"]
    assert "git_commit" in content
    assert load_config(tmp_path / "config.json")[0] == options
    assert files(tmp_path) == ["config.json"]


def test_the_environments_file_is_copied(tmp_path):
    source, folder = tmp_path / "graph.json", tmp_path / "run"
    source.write_text("{}")
    folder.mkdir()
    write_config(folder, config(tmp_path), small_policy(), str(source))
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
