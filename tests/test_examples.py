"""What examples/ shows runs."""

import os
import subprocess
import sys

from rl.envs.contract import POINTS
from tests.support.helpers import ROOT

EXAMPLES = ROOT / "examples"
SMALL = [
    "--num-batches", "1", "--meta-batch-size", "2", "--fast-batch-size", "2", "--test-batch-size", "2",
    "--num-workers", "1",
]  # fmt: skip


def python(*arguments, folder=ROOT):
    """Run Python in a folder, with the examples on its path: standard output."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
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
