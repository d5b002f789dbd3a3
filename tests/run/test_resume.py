"""Runs that go on: `--resume`."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import time

import pytest
from hypothesis import given

from rl import test as evaluation_program
from rl.config import RESUMABLE, Config, load_config, parse_options
from rl.errors import UserError
from rl.files import write_json
from rl.ranks import Ranks
from rl.run import config_file, provenance, resume, test_request
from rl.run.checkpoint import STATE, Counters, State, save_state
from rl.run.folders import Folders
from rl.run.metrics import PROGRESS
from rl.run.setup import Setup
from tests.support.forked import FEW, run
from tests.support.fuzz import FUZZ, spoilt
from tests.torture import GRAPH, SHORT, into, record, run_of

GRAPH_OPTIONS = ["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", GRAPH]


def begun(folder, *line):
    """The log folder of a run that has begun and not computed anything."""
    config = parse_options([*line, *into(folder)])
    setup = Setup(config)
    folders = Folders.make(config)
    for place in (folders.saves, folders.logs):
        config_file.write(place, config, setup.policy)
    options = config_file.result_options(config)
    save_state(folders.saves, State(0, setup.initial_params(), Counters(), options))
    return folders.logs


def chosen(folder, logs, *line):
    return resume.choose(["--resume", str(logs), "--savedir", str(folder / "saves"), *line])


def loaded(line):
    """The state of the run that a command line resumes."""
    config, folders = resume.choose(line)
    return resume.load(Setup(config), folders)


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def commit(name):
    """Have a run think that this code is another commit."""
    provenance.git_commit = lambda: name


def configs(*folders):
    """What the config.json of each folder says."""
    return [json.loads((folder / "config.json").read_text()) for folder in folders]


def trained(folder):
    """As `record`, without evaluations: the last policy of the shorter run had one more."""
    policies, metrics = record(folder)
    return policies, {tag: values for tag, values in metrics.items() if not tag.startswith("evaluation_")}


def test_a_run_may_go_on_for_longer(tmp_path):
    assert run(tmp_path / "at once", SHORT)[0] == 0
    assert run(tmp_path / "grown", FEW)[0] == 0
    logs, saves = run_of(tmp_path / "grown")
    before = json.loads((logs / "config.json").read_text())
    line = ["--resume", str(logs), "--num-batches", "6", "--num-workers", "1"]
    status, output = run(tmp_path / "grown", line, commit, "0123")
    assert status == 0 and "resumed at iteration 4" in output
    assert trained(tmp_path / "grown") == trained(tmp_path / "at once")
    made_with = {name: before[name] for name in ("versions", "processor", "gpu")} | {"git_commit": "0123"}
    after = before | {"num_batches": 6, "continued": [{"iteration": 4} | made_with]}
    assert configs(logs, saves) == [after, after]
    # It is the run of the longer command now, and finished: another commit computes nothing of it.
    status, output = run(tmp_path / "grown", [*SHORT, "--resume", "auto"])
    assert status == 0 and "resumed at iteration 6" in output and "iteration 0" not in output
    assert trained(tmp_path / "grown") == trained(tmp_path / "at once") and configs(logs, saves) == [after, after]


def test_what_changes_no_result_may_change(tmp_path):
    logs = begun(tmp_path, "--num-workers", "2")
    config, folders = chosen(
        tmp_path, logs, "--num-workers", "1", "--device", "cpu", "--worker-timeout", "5", "--learner-memory", "1",
        "--num-batches", "501", "--make_deterministic", "--save-freq", "7", "--test-freq", "3", "--expname", "again",
    )  # fmt: skip
    assert folders.logs == logs
    assert dataclasses.replace(
        config, num_workers=2, device="auto", worker_timeout=600.0, learner_memory=0.0, num_batches=500,
        make_deterministic=False, save_freq=1, test_freq=10, expname="",
    ) == parse_options(["--num-workers", "2", *into(tmp_path)])  # fmt: skip
    # Another name is another run to `auto`.
    auto = ["--resume", "auto", "--num-workers", "2", "--test-freq", "3", *into(tmp_path)]
    assert resume.choose(auto)[1].logs == logs and resume.choose([*auto, "--expname", "again"])[1] is None


def test_what_would_change_the_result_is_refused_with_a_list(tmp_path):
    logs = begun(tmp_path)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path, logs, "--seed", "43", "--fast-lr", "0.5", "--maml", "--num-workers", "1", "--gamma", "0.95")
    text = str(caught.value)
    assert str(logs) in text and "\n" not in text
    for part in ("seed: 42 in the run, 43 given", "fast_lr: 1.0 in the run, 0.5 given", "maml: False in the run, True"):
        assert part in text
    assert "num_workers" not in text and "gamma" not in text


@pytest.mark.parametrize("field", [field for field in dataclasses.fields(Config)], ids=lambda field: field.name)
def test_every_option_is_free_or_refused(tmp_path, field):
    """A new option has to be thought about: it is refused unless it is named as free."""
    logs = begun(tmp_path)
    saved = load_config(logs / "config.json")[0]
    other = {"bool": True, "int": 501, "float": 0.97}.get(field.type.__name__, "another")
    difference = resume.differences(logs, saved, {field.name: other}, {}) if field.name != "env_config_path" else {}
    assert (set(difference) <= RESUMABLE) == (field.name in RESUMABLE | {"env_config_path"})


def test_fewer_iterations_are_refused(tmp_path):
    with pytest.raises(UserError, match="--num-batches: the run has 500"):
        chosen(tmp_path, begun(tmp_path), "--num-batches", "499")


def test_the_environments_file_is_compared_by_content(tmp_path):
    logs = begun(tmp_path, *GRAPH_OPTIONS)
    elsewhere = tmp_path / "elsewhere.json"
    shutil.copy(GRAPH, elsewhere)
    config, _ = chosen(tmp_path, logs, "--env-config-path", str(elsewhere))
    assert config.env_config_path == str(logs / "ctgraph_d2.json")
    elsewhere.write_text(elsewhere.read_text().replace('"depth": 2', '"depth": 3'))
    with pytest.raises(UserError, match=r"env_config_path: .*elsewhere\.json, of another content"):
        chosen(tmp_path, logs, "--env-config-path", str(elsewhere))
    with pytest.raises(UserError, match=r"nowhere\.json: expected an environment's file"):
        chosen(tmp_path, logs, "--env-config-path", str(tmp_path / "nowhere.json"))
    (logs / "ctgraph_d2.json").unlink()
    with pytest.raises(UserError, match="the run's copy of the environment's file is missing"):
        chosen(tmp_path, logs)


def files(folder):
    """Every file of the run below a folder, with its bytes."""
    return {path: path.read_bytes() for path in folder.glob("*/**/*") if path.is_file()}


def test_a_run_that_has_lost_something_is_refused_and_nothing_is_written(tmp_path):
    assert run(tmp_path, FEW)[0] == 0
    logs, saves = run_of(tmp_path)
    resumed = ["--resume", str(logs)]
    longer = [*resumed, "--num-batches", "5"]
    for path, lines in ((saves / STATE, [resumed, [*FEW, "--resume", "auto"]]), (logs / PROGRESS, [longer])):
        content = path.read_bytes()
        # Gone, damaged, cut.
        for left in (None, b"nonsense", content[: len(content) // 2]):
            path.unlink()
            if left is not None:
                path.write_bytes(left)
            before = files(tmp_path)
            for line in lines:
                status, output = run(tmp_path, line)
                assert status == 2 and output.count("\n") == 1 and f"main.py: {path}: expected " in output, output
                assert files(tmp_path) == before
            path.write_bytes(content)
    # The folder of policies is not the run's, either.
    before = files(tmp_path)
    status, output = run(tmp_path, ["--resume", str(saves)])
    assert status == 2 and output.count("\n") == 1
    assert f"{saves}: holds a run's policies; expected its log folder, which was {logs}" in output
    assert files(tmp_path) == before


@pytest.mark.parametrize("made, begun_already", [(True, False), (True, True), (False, True)])
def test_logs_and_policies_may_lie_in_one_folder(tmp_path, made, begun_already):
    """Made so, or moved there."""
    logs = begun(tmp_path)
    shutil.copy(run_of(tmp_path)[1] / STATE, logs)
    if made:
        changed(logs / "config.json", savedir=str(tmp_path / "logs"))
    if begun_already:
        (logs / PROGRESS).touch()
    assert resume.choose(["--resume", str(logs), "--savedir", str(tmp_path / "logs")])[1].saves == logs


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"fast_lr": 0.25}, "fast_lr: 0.5 when the run's state was saved, now 0.25"),
        ({"seed": 3, "gamma": 0.5}, "gamma: 0.95 when the run's state was saved, now 0.5; seed: 42 when"),
        ({"num_batches": 499}, "num_batches: 500 when the run's state was saved, now 499"),
        ({"num_batches": 501, "num_workers": 7, "test_freq": 3, "expname": "x", "versions": {}}, None),
    ],
)
def test_options_edited_in_a_config_are_refused(tmp_path, changes, words):
    logs = begun(tmp_path, *GRAPH_OPTIONS, "--fast-lr", "0.5")
    line = ["--resume", str(logs), "--savedir", str(tmp_path / "saves")]
    changed(logs / "config.json", **changes)
    if words is None:
        assert loaded(line).iteration == 0
        return
    with pytest.raises(UserError) as caught:
        loaded(line)
    assert str(caught.value).startswith(f"{logs}: what decides the run's result was changed: {words}")
    assert "\n" not in str(caught.value)


def test_an_edited_copy_of_the_environments_file_is_refused(tmp_path):
    logs = begun(tmp_path, *GRAPH_OPTIONS)
    line = ["--resume", str(logs), "--savedir", str(tmp_path / "saves")]
    copy = logs / "ctgraph_d2.json"
    copy.write_text(copy.read_text() + "\n")  # whatever the change is, another content
    with pytest.raises(UserError, match=r"env_config_path: a file of SHA-256 .* now a file of SHA-256"):
        loaded(line)


def test_paths_in_a_config_are_not_followed(tmp_path, monkeypatch):
    logs = begun(tmp_path / "here", *GRAPH_OPTIONS)
    trap = tmp_path / "trap"
    shutil.copytree(tmp_path / "here", trap)
    changed(
        logs / "config.json", logdir=str(trap / "logs"), savedir=str(trap / "saves"),
        env_config_path=str(trap / "ctgraph_d2.json"),
    )  # fmt: skip
    config, folders = chosen(tmp_path / "here", logs)
    assert config.env_config_path == str(logs / "ctgraph_d2.json")
    assert str(trap) not in f"{config} {folders.logs} {folders.saves}"
    # Without --savedir the policies are looked for beside the logs.
    assert resume.choose(["--resume", str(logs)])[1].saves == run_of(tmp_path / "here")[1]
    changed(logs / "config.json", env_config_path="../../../secret.json")
    with pytest.raises(UserError, match="copy of the environment's file is missing"):
        chosen(tmp_path / "here", logs)


def test_policies_are_found_where_the_run_put_them(tmp_path):
    logs = begun(tmp_path)
    _, folders = resume.choose(["--resume", str(logs)])
    assert folders.saves == run_of(tmp_path)[1]
    # Both trees moved: the command line says where.
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "saves", moved)
    with pytest.raises(UserError, match="say where with --savedir"):
        resume.choose(["--resume", str(logs)])
    assert resume.choose(["--resume", str(logs), "--savedir", str(moved)])[1].saves.is_relative_to(moved)


def test_a_copy_of_logs_and_policies_goes_on_with_its_own_policies(tmp_path):
    logs = begun(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    copied = tmp_path / "copy" / logs.relative_to(tmp_path / "first")
    for there in (logs, copied):
        _, folders = resume.choose(["--resume", str(there)])
        assert folders.saves.parents[3] == there.parents[3]
    # The first one has gone on: which policies are meant, its user alone knows.
    (folders_of := run_of(tmp_path / "first"))[1].joinpath(STATE).write_bytes(b"later")
    with pytest.raises(UserError) as caught:
        resume.choose(["--resume", str(copied)])
    assert all(str(saves) in str(caught.value) for saves in (folders_of[1], run_of(tmp_path / "copy")[1]))
    saves = str(tmp_path / "copy" / "saves")
    assert resume.choose(["--resume", str(copied), "--savedir", saves])[1].saves == run_of(tmp_path / "copy")[1]


def auto(folder, *line):
    return resume.choose([*line, *into(folder), "--resume", "auto"])


def test_auto_takes_the_newest_run_of_the_same_configuration(tmp_path, capsys):
    config, folders = auto(tmp_path, *GRAPH_OPTIONS)
    assert folders is None and "a new one begins" in capsys.readouterr().out
    runs = [begun(tmp_path, *GRAPH_OPTIONS, "--num-batches", count) for count in ("10", "20", "30")]
    begun(tmp_path, *GRAPH_OPTIONS, "--seed", "1")
    damaged = begun(tmp_path, *GRAPH_OPTIONS, "--num-batches", "20")
    (damaged / "config.json").write_text("{")
    bereft = begun(tmp_path, *GRAPH_OPTIONS)
    (bereft / "ctgraph_d2.json").unlink()
    for age, expected in enumerate(runs):
        later = time.time() + 1 + age
        os.utime(expected / "config.json", (later, later))
        count = json.loads((expected / "config.json").read_text())["num_batches"]
        config, folders = auto(tmp_path, *GRAPH_OPTIONS, "--num-batches", str(count), "--num-workers", "1")
        assert (folders.logs, config.num_batches, config.num_workers) == (expected, count, 1)
    # A longer run is another one; a shorter one goes on.
    assert auto(tmp_path, *GRAPH_OPTIONS, "--num-batches", "25")[1].logs == runs[1]
    assert capsys.readouterr().err == ""
    assert auto(tmp_path, *GRAPH_OPTIONS, "--num-batches", "5")[1] is None
    # What cannot be read might have been the run meant.
    warnings = sorted(capsys.readouterr().err.splitlines())
    expected = sorted([
        f"warning: {damaged / 'config.json'}: expected a JSON file: ",
        f"warning: {bereft / 'ctgraph_d2.json'}: the run's copy of the environment's file is missing; ",
    ])  # fmt: skip
    assert len(warnings) == 2 and all(map(str.startswith, warnings, expected))
    assert all(line.endswith("; --resume auto passes over this run") for line in warnings)
    with pytest.raises(UserError, match=r"^nowhere\.json: expected an environment's file"):
        auto(tmp_path, "--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "nowhere.json")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", [["--resume", "/"], ["--resume", ""], ["--resume", "nowhere"], ["--resume"]])
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        resume.choose(line)


def test_two_processes_may_not_work_on_one_run(tmp_path):
    assert run(tmp_path, FEW)[0] == 0
    logs, saves = run_of(tmp_path)
    before = record(tmp_path)
    # Nor may two copies of a log folder share the folder of policies.
    copy = tmp_path / "copy" / logs.relative_to(tmp_path / "logs")
    shutil.copytree(logs, copy)
    longer = ["--resume", str(logs), "--num-batches", "5"]
    for claimed, line in ((Folders(logs, saves), [*FEW, "--resume", "auto"]), (Folders(copy, saves), longer)):
        with claimed.claimed():
            status, output = run(tmp_path, line)
            assert status == 2 and "another process is at work on this run" in output
        assert record(tmp_path) == before
    assert run(tmp_path, [*FEW, "--resume", "auto"])[0] == 0
    # One folder for both is locked once.
    with Folders(logs, logs).claimed():
        pass


def test_the_command_that_resumes_names_what_it_must(tmp_path):
    config = Config(logdir=str(tmp_path / "my logs"))
    folders = Folders(tmp_path / "my logs" / "run", tmp_path / "saves" / "run")
    alone = Ranks({})
    assert resume.command(config, folders, alone) == f"python main.py --resume '{folders.logs}'"
    elsewhere = dataclasses.replace(config, savedir="there")
    assert resume.command(elsewhere, folders, alone).endswith("--savedir there")
    # torchrun's options are known where all ranks are on one machine.
    for here, begin in (("3", "torchrun --standalone --nproc-per-node 3 main.py --resume "), ("2", "python main.py ")):
        assert resume.command(config, folders, Ranks({"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": here})).startswith(begin)


def test_what_a_run_goes_on_with_is_noted_once_and_warned_of_once(tmp_path, monkeypatch, capsys):
    logs = begun(tmp_path)
    folders = Folders(*run_of(tmp_path))
    begin = configs(logs)[0]
    first = {name: begin[name] for name in ("git_commit", "versions", "processor", "gpu")}
    second = first | {"git_commit": "0123"}

    def warned():
        """How many lines are told on resuming with the commit that there is now."""
        resume.choose(["--resume", str(logs)])
        return len(capsys.readouterr().err.splitlines())

    for git_commit, iteration, expected in (
        (first["git_commit"], 2, []),
        ("0123", 5, [(5, second)]),
        ("0123", 7, [(5, second)]),
        (first["git_commit"], 9, [(5, second), (9, first)]),
        # The last one has computed nothing.
        ("0123", 9, [(5, second)]),
        # Nothing is left of either: the iterations are computed again.
        (first["git_commit"], 4, []),
    ):
        monkeypatch.setattr(provenance, "git_commit", lambda name=git_commit: name)
        told, before = warned(), configs(logs)[0].get("continued", [])
        assert told == (git_commit != (before[-1] if before else first)["git_commit"])
        config_file.extend(folders, Config(num_batches=500), iteration)
        entries = [{"iteration": number} | made_with for number, made_with in expected]
        extended = begin | ({"continued": entries} if entries else {})
        assert configs(folders.saves, logs) == [extended, extended]


def test_a_run_that_ended_between_the_two_notes_goes_on(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(path, content):
        write_json(path, content)
        raise Stopped

    logs = begun(tmp_path)
    folders = Folders(*run_of(tmp_path))
    begin = configs(logs)[0]
    monkeypatch.setattr(provenance, "git_commit", lambda: "0123")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(config_file, "write_json", stop)
        config_file.extend(folders, Config(num_batches=600), 5)
    assert configs(logs) == [begin] != configs(folders.saves)
    # Its policies are still found without --savedir, and what the second commit never computed is not noted.
    config, folders = resume.choose(["--resume", str(logs)])
    monkeypatch.setattr(provenance, "git_commit", lambda: "4567")
    config_file.extend(folders, config, 5)
    (entry,) = configs(logs)[0]["continued"]
    assert entry["git_commit"] == "4567" and configs(folders.saves) == configs(logs)


DESCRIBED = {"input_size": 17, "output_size": 3, "versions": {}, "continued": [{"iteration": 3, "versions": {}}]}
CONFIG = dataclasses.asdict(parse_options(GRAPH_OPTIONS)) | DESCRIBED


@pytest.fixture(scope="module")
def graph_run(tmp_path_factory):
    """A run on a graph: (its place, its log folder)."""
    folder = tmp_path_factory.mktemp("fuzzed")
    return folder, begun(folder, *GRAPH_OPTIONS)


@FUZZ
@given(text=spoilt(CONFIG))
def test_a_fuzzed_config_is_a_clean_error_or_a_run(graph_run, text):
    folder, logs = graph_run
    path = logs / "config.json"
    path.write_bytes(text)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(UserError):
        config, folders = chosen(folder, logs)
        assert folders.logs == logs and str(folder / "saves") in str(folders.saves)
        if config.num_layers < 100:
            resume.load(Setup(config), folders)
    with contextlib.suppress(UserError):
        options = evaluation_program.parse([str(path), "policy.pt"])
        config, _ = load_config(options.config)
        file = test_request.environment_file(options, config)
        assert file in ("", str(logs / "ctgraph_d2.json")) or logs in (logs / file).parents
        test_request.overridden(config, options, file)
