"""`python -m rl.envs.check`: whatever breaks the contract is told of by the line of its point."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rl.envs
from rl.envs import check, contract
from rl.envs.contract import POINTS
from tests.support.broken_env import leaving
from tests.support.helpers import ROOT

CTGRAPHS = sorted((Path(rl.envs.__file__).parent / "ctgraph").glob("ctgraph_*.json"))
USERS, BREACHES = "tests.support.user_environments", "tests.support.contract_breaches"
SENTENCES = {point.__name__: point.__doc__.rstrip(".") for point in POINTS}


def checked(capsys, *arguments):
    """(exit status, the lines, what is said of each point that fails: its function's name -> text)."""
    status = check.main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    failures = {
        name: line.removeprefix(f"FAILS: {sentence}: ")
        for name, sentence in SENTENCES.items()
        for line in lines
        if line.startswith(f"FAILS: {sentence}: ")
    }
    return status, lines, failures


# Most environments are held to the contract in tests of their own.
@pytest.mark.parametrize("name", ["2DNavigation-v0", *(f"{USERS}:{name}-v0" for name in ("Impatient", "Dull", "Both"))])
def test_good_environments_keep_the_contract(capsys, name):
    assert checked(capsys, name)[:2] == (0, [f"ok: {sentence}" for sentence in SENTENCES.values()])


@pytest.mark.parametrize("path", CTGRAPHS, ids=lambda path: path.stem)
def test_blind_actions_find_the_goals_of_a_ctgraph(capsys, path):
    status, lines, _ = checked(capsys, "CTgraphEnvGoalChange-v0", "--env-config-path", path)
    assert status == 0 and f"ok: {SENTENCES['tasks_matter']}" in lines


@pytest.mark.parametrize(
    "name, point, told",
    [
        (f"{BREACHES}:Random", "tasks_are_data", "train tasks: others from an equal generator; expected the same"),
        (f"{USERS}:Careless", "tasks_are_data", "Object of type int64 is not JSON serializable"),
        (f"{USERS}:Short", "tasks_are_data", "sample_tasks must return a list of 3 dicts"),
        (f"{USERS}:ShortVector", "tasks_are_data", "sample_tasks must return a list of 3 dicts"),
        (f"{USERS}:Untested", "tasks_are_data", "sample_tasks must return a list of 3 dicts"),
        (f"{USERS}:Lonely", "declared", "observations: float32 of shape (2,); expected float32 of shape (5, 2)"),
        (f"{BREACHES}:Outside", "declared", "expected one within Box(-0.1, 0.1, (1,), float32)"),
        (f"{BREACHES}:Unbounded", "declared", "reward of step 0, episode 0: -inf; expected a finite number"),
        (f"{BREACHES}:Global", "repeatable", "played again: observations[0]: "),
        (f"{BREACHES}:Crowded", "independent", "beside the others, compared with alone: rewards[0]: "),
        (f"{BREACHES}:Deaf", "tasks_matter", "gave the same observations, rewards, ends and infos"),
        (f"{BREACHES}:Clipping", "ownership", "actions: a step changed them; expected changes of a copy alone"),
        (f"{BREACHES}:Spending", "ownership", "now they are [{'goal': "),
        (f"{BREACHES}:Unending", "ends", "an episode continues after step 100; expected an end by the horizon"),
        (f"{BREACHES}:Moving", "ends", "observations of episode 0 changed after its end in step 99"),
        (f"{BREACHES}:Whole", "restarts", "beside one that was restarted, compared with undisturbed: observations[0]"),
        (f"{BREACHES}:Owner", "ownership", "observations of reset: a later step changed it"),
        (f"{BREACHES}:Fixed", "seeds_in_sequence", "seed=40, compared with seed=[40, 41, 42]: observations[0]: "),
        (f"{BREACHES}:Forgetful", "streams_go_on", "the second episodes after a seed: observations[0]: "),
        (f"{BREACHES}:Precise", "gymnasium_checks", "is not within the observation space"),
    ],
)
def test_a_breach_is_told_by_its_line(capsys, monkeypatch, name, point, told):
    monkeypatch.setattr(contract, "STEPS_TO_TELL_TASKS_APART", 2000)
    status, lines, failures = checked(capsys, f"{name}-v0")
    assert status == 1 and told in failures[point]
    assert len(lines) == len(POINTS)
    # Those that break one thing alone.
    if name.startswith(BREACHES) and not name.endswith((":Random", ":Global", ":Crowded", ":Moving")):
        assert list(failures) == [point]


def test_what_an_environment_raises_is_told_with_its_place(capsys, monkeypatch):
    monkeypatch.setenv("OBSTINATE_RAISES", "so it is")
    status, _, failures = checked(capsys, "tests.support.broken_env:Obstinate-v0")
    assert status == 1
    assert failures["declared"].startswith("episode 0: ArithmeticError: so it is (")
    assert "broken_env.py, line " in failures["declared"]


@pytest.mark.parametrize("where, status", [("import", 2), ("constructor", 2), ("sample_tasks", 1), ("step", 1)])
def test_code_that_ends_the_program_does_not_end_this_one(capsys, tmp_path, monkeypatch, where, status):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert check.main([leaving(tmp_path, where)]) == status
    captured = capsys.readouterr()
    assert f"leaving_in_{where}.py, line 5" in captured.out + captured.err


@pytest.mark.parametrize(
    "name, told",
    [
        ("2DNavigatoin-v0", "unknown environment '2DNavigatoin-v0' (did you mean 2DNavigation-v0?)"),
        (f"{USERS}:Taskless-v0", "cannot change its task: add sample_tasks"),
        ("mine:Walk-v0", "ZeroDivisionError: division by zero ("),
    ],
)
def test_an_environment_that_cannot_be_made(capsys, tmp_path, monkeypatch, name, told):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("1 / 0\n", encoding="utf-8")
    assert check.main([name]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and told in captured.err and captured.err.count("\n") == 1


@pytest.mark.parametrize("redirected, status, told", [
    ("| head -n 1", 1, "rl.envs.check: standard output: Broken pipe\n"),
    (">&-", 0, ""),
    ("> /dev/full", 1, "rl.envs.check: standard output: No space left on device\n"),
])  # fmt: skip
def test_whatever_becomes_of_its_output(tmp_path, redirected, status, told):
    line = f"set -o pipefail; {sys.executable} -m rl.envs.check Bandit-K5-v0 {redirected}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, told)


def test_without_assertions_nothing_can_be_checked():
    line = [sys.executable, "-OO", "-m", "rl.envs.check", "Bandit-K5-v0"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and "PYTHONOPTIMIZE" in done.stderr


def test_the_program_finds_modules_in_the_present_folder(tmp_path):
    (tmp_path / "yours.py").write_text(f"import {USERS}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "rl.envs.check", "yours:Walk-v0"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("ok: ") == len(POINTS) and done.stderr == ""
