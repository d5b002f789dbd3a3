import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children

import pandas as pd
import pytest
import torch

import rl.main
from rl.config import Config, load_config, parse_options
from rl.errors import UserError
from rl.main import program as main
from rl.run.setup import Setup
from tests.support.broken_env import leaving
from tests.support.forked import Forked
from tests.support.helpers import ROOT, only_run
from tests.torture import Program, into, progress, record

GRAPH = ROOT / "rl" / "envs" / "ctgraph" / "ctgraph_d2.json"
NAVIGATION = ["--env-name", "2DNavigation-v0", "--neuromodulation", "--nm-size", "3"]
WALKS = ["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", str(GRAPH), "--neuromodulation"]
SMALL = [
    "--num-batches", "3", "--meta-batch-size", "7", "--fast-batch-size", "3",
    "--num-test-tasks", "6", "--test-batch-size", "3",
    "--num-test-steps", "2", "--test-freq", "2", "--hidden-size", "8", "--tasks-per-group", "3",
]  # fmt: skip
LONG = ["--num-batches", "99999", "--num-workers", "2"]
TAGS = {
    "policy/actions_train", "policy/actions_test", "running_returns/before_update", "running_returns/after_update",
    "running_cfis/before_update", "running_cfis/after_update", "loss/inner_rl", "loss/outer_rl", "trpo/kl",
    "trpo/step_size", "trpo/backtracks", "trpo/improvement", "trpo/cg_residual", "trpo/gradient_norm",
    "baseline/ridge_retries", "time/sampling", "time/learning", "time/evaluation", "time/env_steps_per_second",
    "trpo/no_update", "trpo/rejected_nonfinite",
    *(f"evaluation_{kind}/avg_rew {updates}" for kind in ("rew", "cfi") for updates in range(3)),
}  # fmt: skip


def trained(folder, *line):
    assert main([*SMALL, *line, *into(folder)]) == 0
    return record(folder)


@pytest.mark.parametrize("line", [NAVIGATION, WALKS, [*NAVIGATION[:2], "--maml"]], ids=["cavia", "walks", "maml"])
def test_the_same_seed_is_the_same_run_for_any_number_of_workers(tmp_path, line):
    """None at all is this process."""
    policies, curves = trained(tmp_path / "0", *line, "--num-workers", "0")
    assert set(policies) == {"policy-0.pt", "policy-1.pt", "policy-2.pt"}
    assert policies["policy-0.pt"] != policies["policy-1.pt"] != policies["policy-2.pt"]
    for workers in ("1", "3") if line is WALKS else ("2",):
        assert trained(tmp_path / workers, *line, "--num-workers", workers) == (policies, curves)
    others, other_curves = trained(tmp_path / "other seed", *line, "--num-workers", "0", "--seed", "43")
    assert others["policy-0.pt"] != policies["policy-0.pt"]
    assert other_curves["loss/inner_rl"] != curves["loss/inner_rl"]


def test_the_last_policy_is_evaluated(tmp_path):
    _, curves = trained(tmp_path, *NAVIGATION, "--num-workers", "0", "--test-freq", "10")
    assert [bool(value) for value in curves["evaluation_rew/avg_rew 0"]] == [True, False, True]


@pytest.mark.slow
def test_another_process_computes_the_same(tmp_path):
    program = Program(tmp_path, *SMALL, *NAVIGATION, "--num-workers", "2", *into(tmp_path / "other process"))
    assert (program.finish(), program.errors) == (0, "")
    assert record(tmp_path / "other process") == trained(tmp_path / "this one", *NAVIGATION, "--num-workers", "0")


def test_a_run_writes_what_it_should(tmp_path, capsys):
    line = [*SMALL, *WALKS, "--num-workers", "0", "--save-freq", "2", "--expname", "name"]
    assert main([*line, "--num-batches", "4", *into(tmp_path)]) == 0
    logs, saves = only_run(tmp_path / "logs"), only_run(tmp_path / "saves")
    assert logs.relative_to(tmp_path / "logs") == saves.relative_to(tmp_path / "saves")
    assert logs.parts[-3:-1] == ("CTgraphEnvGoalChange-v0", "nm_cavia") and logs.name.endswith("_name")
    # Every second policy and the last one.
    assert {path.name for path in saves.iterdir()} == {
        "config.json", "ctgraph_d2.json", "policy-0.pt", "policy-2.pt", "policy-3.pt", "state.pt", ".lock",
    }  # fmt: skip
    table = progress(logs)
    gates = {tag for tag in table if tag.startswith("gates/layer")}
    assert gates and set(table) - gates == TAGS | {"sampler/worker_restarts"}
    for tag in table:
        evaluated = tag.startswith(("evaluation", "gates")) or tag == "time/evaluation"
        assert list(table[tag].dropna().index) == ([0, 2, 3] if evaluated else [0, 1, 2, 3]), tag
    config, description = load_config(logs / "config.json")
    assert config == parse_options([*line, "--num-batches", "4", *into(tmp_path)])
    assert description["input_size"] == 17 and description["output_size"] == 3
    assert (logs / "config.json").read_text() == (saves / "config.json").read_text()
    assert json.loads((logs / "ctgraph_d2.json").read_text()) == json.loads(GRAPH.read_text())
    output = capsys.readouterr()
    assert output.out.count("\niteration ") == 4 and output.out.count("\n  evaluation") == 3 and output.err == ""
    assert active_children() == []


def bad(*line):
    return pytest.param(line, id=" ".join(line) or "none")


@pytest.mark.parametrize(
    "line",
    [
        bad("--env-name", "Nowhere-v0"),
        bad("--unknown-option"),
        bad("--device", "cuda"),
        bad("--env-name", "CTgraphEnvGoalChange-v0"),
        bad("--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "nowhere.json"),
        bad("--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "malformed.json"),
        bad("--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "list.json"),
        bad("--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "unlikely.json"),
        bad("--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", "."),
        bad("--env-name", "2DNavigation-v0", "--env-config-path", "unlikely.json"),
        bad("--env-name", "no.such.module:Id-v0"),
        bad("--env-name", "tests.support.broken_env:Nowhere-v0"),
        bad("--env-name", "tests.support.broken_env:BrokenTaskless-v0"),
        bad("--env-name", ":"),
        bad("--env-name", ""),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "malformed.json").write_text('{"seed": ')
    (tmp_path / "list.json").write_text("[]")
    assert '"delay_prob": 0.0' in GRAPH.read_text()
    (tmp_path / "unlikely.json").write_text(GRAPH.read_text().replace('"delay_prob": 0.0', '"delay_prob": 1.0'))
    before = sorted(tmp_path.iterdir())
    assert main([*line, "--num-workers", "0", *into(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("main.py: ") and len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
    assert active_children() == []


def test_bad_input_of_the_program_itself(tmp_path):
    command = [sys.executable, "main.py", "--env-name", "Nowhere-v0", *into(tmp_path)]
    done = subprocess.run(command, cwd=ROOT / "rl", capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_workers_exception_reaches_the_user_with_its_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OBSTINATE_RAISES", "no more of this")
    line = ["--env-name", "tests.support.broken_env:Obstinate-v0", "--num-workers", "2"]
    assert main([*SMALL, *line, *into(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "ArithmeticError: no more of this" in error and "broken_env.py" in error and "Traceback" in error
    assert active_children() == []


@pytest.mark.parametrize(
    "where, status",
    [("import", 2), ("constructor", 2), ("sample_tasks", 2), ("set_tasks", 2), ("reset", 1), ("step", 1)],
)
def test_an_environment_cannot_end_the_program_with_0(tmp_path, monkeypatch, capsys, where, status):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    name = leaving(tmp_path, where)
    workers = "1" if where == "step" else "0"
    assert main([*SMALL, "--env-name", name, "--num-workers", workers, *into(tmp_path / "run")]) == status
    error = capsys.readouterr().err
    if status == 2:
        assert f"environment {name}: " in error and " it calls sys.exit(0) in " in error and error.count("\n") == 1
        assert not (tmp_path / "run").exists()
    else:
        assert f"main.py: {name}: SystemExit: 0 (task" in error and "line 5, in leave" in error
    assert active_children() == []


@pytest.mark.parametrize(
    "line, message",
    [
        (
            ["--env-name", "tests.support.user_environments:Short-v0"],
            "--meta-batch-size 7: environment tests.support.user_environments:",
        ),
        (["--env-name", "tests.support.user_environments:Careless-v0"], "sample_tasks must return a list of 7 dicts"),
        (
            ["--env-name", "tests.support.user_environments:ShortVector-v0"],
            "sample_tasks must return a list of 7 dicts",
        ),
        (
            ["--env-name", "tests.support.user_environments:Untested-v0"],
            "--num-test-tasks 6: environment tests.support.user_env",
        ),
    ],
)
def test_what_is_wrong_with_tasks_is_told_before_anything_is_written(tmp_path, capsys, line, message):
    assert main([*SMALL, *line, "--num-workers", "0", *into(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_status_2_means_that_nothing_was_written(tmp_path, capsys):
    """What is wrong with later tasks is an error of the run."""
    line = ["--env-name", "tests.support.user_environments:Tiring-v0", "--num-workers", "0", "--test-freq", "1"]
    assert main([*SMALL, *line, *into(tmp_path)]) == 1
    resume, told = capsys.readouterr().err.splitlines()
    assert resume.startswith("resume with: ") and "sample_tasks must return a list of 7 dicts" in told


@pytest.mark.parametrize("begin, number, to", [(1, signal.SIGINT, os.killpg), (4, signal.SIGTERM, os.kill)])
def test_a_signal_ends_the_run_at_once_and_leaves_no_process(tmp_path, begin, number, to):
    """To the whole group while workers start, as from a terminal, and to the main process while training, as by `kill`.
    What was computed can be loaded.
    """
    program = Forked(tmp_path / "output", [*SMALL, *NAVIGATION, *LONG, *into(tmp_path)])
    program.until_lines(begin)
    to(program.process.pid, number)
    assert program.finish() == 128 + number
    advice, line = program.errors.splitlines()
    assert advice.startswith("resume with: python ") and line == f"main.py: interrupted ({number.name})"
    assert begin == 1 or record(tmp_path)


DULL = [
    "--env-name", "tests.support.user_environments:Dull-v0", "--num-workers", "0", "--meta-batch-size", "2",
    "--fast-batch-size", "2",
    "--num-test-tasks", "2", "--test-batch-size", "3", "--num-test-steps", "1", "--test-freq", "99",
    "--hidden-size", "4",
]  # fmt: skip


def test_a_policy_that_stands_still_is_told_of_once_and_at_the_end(tmp_path, capsys):
    """Every return is 0: no step is accepted. The run is resumed before and after it is told of."""
    still, never = "warning: 10 outer steps in a row changed nothing", "the policy never moved: of {} outer steps none"
    assert main([*DULL, "--num-batches", "7", *into(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.count(", no step accepted, ") == 7 and still not in output and never.format(7) in output
    resume = ["--resume", str(only_run(tmp_path / "logs")), "--savedir", str(tmp_path / "saves")]
    assert main([*resume, "--num-batches", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (warned,) = (number for number, line in enumerate(lines) if line.startswith(still))
    assert lines[warned - 1].startswith("iteration 9:") and any(never.format(12) in line for line in lines[warned:])
    assert main([*resume, "--num-batches", "22"]) == 0
    output = capsys.readouterr().out
    assert still not in output and never.format(22) in output
    policies = (only_run(tmp_path / "saves") / f"policy-{iteration}.pt" for iteration in (0, 21))
    before, after = (torch.load(path, weights_only=True) for path in policies)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_success_rates_are_told_where_the_environment_tells_them(tmp_path, capsys):
    seek = ["tests.support.user_environments:Seek-v0" if word.endswith("Dull-v0") else word for word in DULL]
    assert main([*seek, "--num-batches", "1", *into(tmp_path / "seek")]) == 0
    first, evaluation, *rest = capsys.readouterr().out.splitlines()[1:]
    rate = r"\d+\.\d%"
    assert re.match(rf"iteration 0: return \S+ -> \S+, success rate {rate} -> {rate}, ", first)
    assert re.fullmatch(rf"  evaluation after .*: \S+, \S+; success rate \(any step\): {rate}, {rate}", evaluation)
    assert any(re.fullmatch(rf"success rate \(any step\): {rate}, {rate}", line) for line in rest)
    assert main([*NAVIGATION, *SMALL, "--num-batches", "1", "--num-workers", "0", *into(tmp_path / "navigation")]) == 0
    assert "success rate" not in capsys.readouterr().out


def test_an_end_that_is_reported_once_is_the_end(tmp_path, capsys):
    """Four episodes of 3, 4, 5 and 6 steps, a reward of 1 each, by a vector environment that knows no more of itself
    than gymnasium asks for.
    """
    once = ["tests.support.user_environments:Once-v0" if word.endswith("Dull-v0") else word for word in DULL]
    assert main([*once, "--num-batches", "1", *into(tmp_path)]) == 0
    assert "iteration 0: return 4.500 -> 4.500, " in capsys.readouterr().out


def test_a_program_is_given_the_runs_folder_and_exceptions(tmp_path, capsys):
    line = [*SMALL, *NAVIGATION, "--num-batches", "1", "--num-workers", "0"]
    threads = torch.get_num_threads()
    # A sweep may run trials in threads, in which Python allows no handlers of signals.
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(rl.main.main, [*line, *into(tmp_path)]).result()
    assert run == only_run(tmp_path / "logs").resolve() and torch.get_num_threads() == threads
    assert rl.main.main(["--resume", str(run), "--num-batches", "2"]) == run
    capsys.readouterr()
    with pytest.raises(UserError, match="--fast-lr: expected more than"):
        rl.main.main([*line, "--fast-lr", "0"])
    assert capsys.readouterr().err == ""


def test_a_run_begins_with_a_saved_policy(tmp_path, capsys):
    line = [*SMALL, *NAVIGATION, "--num-batches", "1", "--num-workers", "0", "--seed", "7"]
    first = rl.main.main([*line, "--seed", "6", *into(tmp_path / "first")])
    policy = only_run(tmp_path / "first" / "saves") / "policy-0.pt"
    saved = torch.load(policy)
    begun = Setup(Config(**{**load_config(first / "config.json")[0].__dict__, "init": str(policy)})).initial_params()
    assert all(torch.equal(value, saved[name]) for name, value in begun.items())
    runs = [rl.main.main([*line, *more, *into(tmp_path / str(number))])
            for number, more in enumerate(([], ["--init", str(policy)]))]  # fmt: skip
    losses = [pd.read_csv(run / "progress.csv")["running_returns/before_update"][0] for run in runs]
    assert losses[0] != losses[1]
    assert load_config(runs[1] / "config.json")[0].init == str(policy)
    again = [*line, "--init", str(policy), *into(tmp_path / "1"), "--resume", "auto", "--num-batches"]
    assert rl.main.main([*again, "2"]) == runs[1]
    # Another policy under the same name begins another run.
    policy.write_bytes((only_run(tmp_path / "0" / "saves") / "policy-0.pt").read_bytes())
    assert rl.main.main([*again, "2"]) != runs[1]
    with pytest.raises(UserError, match="of another content"):
        rl.main.main(["--resume", str(runs[1]), "--init", str(policy)])
    policy.unlink()
    assert rl.main.main(["--resume", str(runs[1]), "--num-batches", "3"]) == runs[1]


@pytest.mark.parametrize(
    "policy, told", [("wide", r"policy-1\.pt: does not fit .*layer1"), ("none", "none: expected a")]
)
def test_a_policy_that_does_not_fit_begins_no_run(tmp_path, tiny, policy, told):
    tiny.run("navigation")
    path = only_run(tiny.folder / "navigation" / "saves") / "policy-1.pt" if policy == "wide" else tmp_path / policy
    with pytest.raises(UserError, match=f"^--init: .*{told}"):
        rl.main.main([*SMALL, "--init", str(path), "--num-workers", "0", *into(tmp_path)])
    assert not (tmp_path / "logs").exists()
