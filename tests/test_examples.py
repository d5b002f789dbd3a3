"""What examples/ shows runs."""

import runpy

import numpy as np
import pytest

from rl import main
from rl.envs import check
from rl.envs.contract import POINTS
from tests.support.helpers import ROOT, only_run
from tests.torture import into

EXAMPLES = ROOT / "examples"
SMALL = [
    "--num-batches", "1", "--meta-batch-size", "2", "--fast-batch-size", "2",
    "--num-test-tasks", "2", "--test-batch-size", "2",
    "--num-workers", "0",
]  # fmt: skip


def test_line_trains(tmp_path, monkeypatch):
    """By the command that its docstring gives, shortened."""
    monkeypatch.syspath_prepend(EXAMPLES)
    source = (EXAMPLES / "line.py").read_text(encoding="utf-8")
    (line,) = (line for line in source.splitlines() if " python main.py " in line)
    command = line.partition(" python main.py ")[2].split()
    assert main.program([*command, *SMALL, *into(tmp_path)]) == 0
    assert list((tmp_path / "saves" / "line_Line-v0" / "nm_cavia").glob("*/policy-0.pt"))


def test_line_keeps_the_contract(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    assert check.main(["line:Line-v0"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(POINTS) and all(line.startswith("ok: ") for line in told)


@pytest.mark.parametrize("name", ["navigation", "maml", "graph"])
def test_adapt_by_hand_does_what_an_evaluation_does(name, tiny, capsys):
    """Its returns are those of the first task of test.py's evaluation, before and after the first update."""
    folder = tiny.run(name)
    policy = only_run(tiny.folder / name / "saves") / "policy-1.pt"
    evaluation = tiny.evaluation(name, "--num-tasks", "1")
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / "adapt_by_hand.py"))["main"](folder / "config.json", policy)
    told = capsys.readouterr().out
    before, after = (np.load(evaluation / "rewards.npy")[0, ..., update].sum(axis=0).mean() for update in (0, 1))
    assert told.splitlines()[-1] == f"return before: {before:.3f}, after: {after:.3f}"
