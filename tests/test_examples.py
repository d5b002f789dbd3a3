"""What examples/ shows runs."""

import os
import subprocess
import sys

import numpy as np
import pytest

from rl.envs.contract import POINTS
from tests.support.helpers import ROOT, only_run

EXAMPLES = ROOT / "examples"
SMALL = [
    "--num-batches", "1", "--meta-batch-size", "2", "--fast-batch-size", "2", "--test-batch-size", "2",
    "--num-workers", "0",
]  # fmt: skip


def python(*arguments, folder=ROOT):
    """Run Python in a folder, with the examples on its path: standard output."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=os.environ | {"PYTHONPATH": f"{ROOT}:{EXAMPLES}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout


def test_line_trains(tmp_path):
    """By the command that its docstring gives, shortened."""
    source = (EXAMPLES / "line.py").read_text(encoding="utf-8")
    (line,) = (line for line in source.splitlines() if " python main.py " in line)
    command = line.partition(" python ")[2].split()
    folders = ["--logdir", tmp_path / "logs", "--savedir", tmp_path / "saves"]
    python(*command, *SMALL, *folders, folder=ROOT / "rl")
    assert list((tmp_path / "saves" / "line_Line-v0" / "nm_cavia").glob("*/policy-0.pt"))


def test_line_keeps_the_contract():
    told = python("-m", "rl.envs.check", "line:Line-v0").splitlines()
    assert len(told) == len(POINTS) and all(line.startswith("ok: ") for line in told)


@pytest.mark.parametrize("name", ["navigation", "maml", "graph"])
def test_adapt_by_hand_does_what_an_evaluation_does(name, tiny):
    """Its returns are those of the first task of test.py's evaluation, before and after the first update."""
    folder = tiny.run(name)
    policy = only_run(tiny.folder / name / "saves") / "policy-1.pt"
    told = python("examples/adapt_by_hand.py", folder / "config.json", policy)
    evaluation = tiny.evaluation(name, "--num-tasks", "1")
    before, after = (np.load(evaluation / "rewards.npy")[0, ..., update].sum(axis=0).mean() for update in (0, 1))
    assert told.splitlines()[-1] == f"return before: {before:.3f}, after: {after:.3f}"
