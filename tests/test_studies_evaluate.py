"""How a trained run of the experiments is found and evaluated, and what is said where that cannot be done."""

import importlib
import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rl import main
from rl.errors import UserError
from tests.support.helpers import ROOT

sys.path.insert(0, str(ROOT / "studies"))
evaluate, partial = map(importlib.import_module, ("evaluate", "partial"))


def keep_run(place, name, *policies):
    """A run's folders in a place, empty but for the files that it is found by: its log folder."""
    logs, saves = (place / kind / "2DNavigation-v0" / "cavia" / name for kind in ("logs", "saves"))
    logs.mkdir(parents=True)
    saves.mkdir(parents=True)
    (logs / "config.json").write_text("{}")
    for policy in policies:
        (saves / policy).touch()
    return logs


def test_the_run_that_has_its_last_policy_is_taken(tmp_path):
    with pytest.raises(UserError, match=r"expected one run that has its policy-4\.pt, found none"):
        evaluate.trained(tmp_path, 5)
    keep_run(tmp_path, "begun", "policy-3.pt")
    whole = keep_run(tmp_path, "whole", "policy-3.pt", "policy-4.pt")
    policy = tmp_path / "saves/2DNavigation-v0/cavia/whole/policy-4.pt"
    assert evaluate.trained(tmp_path, 5) == (whole, policy)
    keep_run(tmp_path, "again", "policy-4.pt")
    with pytest.raises(UserError, match=r"policy-4\.pt, found again, whole"):
        evaluate.trained(tmp_path, 5)


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["maze", "cavia", "1"], "experiments.toml: has no 'maze'; expected one of ctgraph_d2, "),
        (["navigation", "caviar", "1"], "experiments.toml: has no 'caviar'; expected one of cavia, "),
        (["navigation", "cavia", "1"], "navigation/cavia/1: expected one run that has its policy-200.pt, found none"),
        (["navigation", "cavia", "one"], "argument seed: invalid int value: 'one'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tmp_path, capsys, words, complaint):
    assert evaluate.main([*words, "--runs", str(tmp_path), "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate.py: ") and complaint in line


def test_an_evaluation_that_fails_is_reported_with_its_status(tmp_path, monkeypatch):
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl/test.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.setattr(evaluate, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"policy-1\.pt: test\.py ended with exit status 3;"):
        evaluate.test(tmp_path / "run", tmp_path / "policy-1.pt", tmp_path / "evaluations", recorded=False, options=())


def test_all_methods_of_an_experiment_adapt_from_as_many_episodes(tmp_path, monkeypatch):
    row = evaluate.table.read().experiments["ctgraph_d2"]
    asked = []

    class Asked(Exception):
        pass

    def test(folder, policy, logdir, recorded, options):
        asked.append(options)
        raise Asked

    monkeypatch.setattr(evaluate, "test", test)
    run = SimpleNamespace(path=tmp_path)
    for one in (row, row._replace(test_episodes=0)):
        with pytest.raises(Asked):
            evaluate.on_test_tasks(one, run, tmp_path / "policy.pt", tmp_path)
    assert asked == [["--num-tasks", "200", "--test-batch-size", "20"], ["--num-tasks", "200"]]


def test_what_a_run_was_made_with_is_kept_if_it_is_known(tmp_path):
    path = tmp_path / "config.json"
    began = {"git_commit": None, "versions": {"torch": "2.13.0"}}
    path.write_text(json.dumps(began))
    expected = {"options": "--seed 1", "commit": None, "versions": {"torch": "2.13.0"}, "processor": None, "gpu": None}
    assert evaluate.description(tmp_path, ["--seed", "1"]) == expected
    continued = [{"iteration": 7, "git_commit": "0123", "versions": {}, "processor": "another"}]
    path.write_text(json.dumps(began | {"continued": continued}))
    assert evaluate.description(tmp_path, ["--seed", "1"]) == expected | {"continued": continued}


def test_a_half_finished_run_goes_on_elsewhere_with_the_same_bytes(tmp_path):
    """Packed after one iteration and gone on with where it is unpacked, a run ends as one that never stopped."""
    name = Path("navigation", "cavia", "1")
    options = shlex.split("--hidden-size 4 --meta-batch-size 2 --fast-batch-size 2 --test-batch-size 2 --num-workers 0")

    def train(runs, batches):
        places = ["--logdir", str(runs / name / "logs"), "--savedir", str(runs / name / "saves")]
        main.main([*options, "--num-batches", str(batches), "--resume", "auto", *places])

    for folder, batches in (("whole", 2), ("here", 1)):
        train(tmp_path / folder, batches)
        (tmp_path / folder / name / "options").touch()
    (tmp_path / "whole" / name / "trained").touch()
    results, there = tmp_path / "results", tmp_path / "there"
    (packed,) = partial.pack(tmp_path / "here", results)
    assert packed == results / "navigation/cavia/1.partial.tar.xz" and not partial.pack(tmp_path / "whole", results)
    (there / name / "logs").mkdir(parents=True)  # an interrupted one has left this
    (there / name / "logs" / "torn").touch()
    partial.unpack(there, results, name)
    assert not list(there.rglob("policy-*")) and not list(there.rglob("torn"))
    train(there, 2)
    first, second = (sorted((tmp_path / folder).rglob("policy-1.pt")) for folder in ("whole", "there"))
    assert len(first) == len(second) == 1 and first[0].read_bytes() == second[0].read_bytes()
    partial.unpack(there, results, name)  # what has begun stays
    assert second[0].exists()
    # Noise is not packed any smaller: too large for a commit.
    (tmp_path / "here" / name / "saves" / "noise").write_bytes(os.urandom(partial.LARGEST))
    with pytest.raises(UserError, match=r"here/navigation/cavia/1 \(1\.\d MB\): expected at most 1 MB"):
        partial.pack(tmp_path / "here", results)
