import io

import numpy as np
import pytest

from rl.config import Config
from rl.evaluation.evaluate import Evaluated, Summary
from rl.run import console
from rl.run.folders import Folders
from rl.run.summary import summary
from tests.support.helpers import only_run


class Terminal(io.StringIO):
    def isatty(self):
        return True


TIMES = {"sampling": 2.0, "learning": 1.0}


def summary_of(mean, rate=None):
    """A `Summary`: the mean return, 2500 steps, and successes in some of 8 episodes."""
    success = np.arange(8).reshape(1, 8) < 8 * (rate or 0)
    told = {} if rate is None else {"any": success, "final": success}
    return Summary(np.full((1, 8), mean), np.array([2500]), np.zeros(1), told)


def step(kl):
    return {"trpo/kl": kl or 0.0, "trpo/step_size": float(kl is not None)}


def shown(stream, number=0, success=(None, None), kl=0.01, quiet=False, first=0):
    config = Config(num_batches=4, quiet=quiet)
    with console.Console(config, first, stream) as told:
        told.iteration(number, (summary_of(-3.0, success[0]), summary_of(-1.5, success[1])), step(kl), TIMES)
    return stream.getvalue()


def test_plain_lines_on_a_pipe():
    first = shown(io.StringIO(), 2, first=2)
    assert first.startswith("iteration 2: return -3.000 -> -1.500, kl 0.0100, sampling 2.00 s, learning 1.00 s, 2500 ")
    second = shown(io.StringIO(), 3, success=(0.125, 0.5), first=2)
    assert second.startswith("iteration 3: return -3.000 -> -1.500, success rate 12.5% -> 50.0%, kl 0.0100, sampling ")
    assert second.endswith("2500 steps/s, 0:00:00 left\n")


@pytest.mark.parametrize("kl, words", [(None, "no step accepted"), (0.01, "kl 0.0100"), (1.23e-5, "kl 1.2e-05")])
def test_no_step_is_told_from_a_small_one(kl, words):
    for stream in (io.StringIO(), Terminal()):
        assert f", {words}, " in shown(stream, kl=kl) and "0.0000" not in stream.getvalue()


def test_a_bar_on_a_terminal_unless_quiet():
    terminal = Terminal()
    with console.Console(Config(num_batches=4), stream=terminal) as told:
        evaluation = Evaluated([], (summary_of(-3.0), summary_of(-2.0)), 0.0)
        told.iteration(0, (summary_of(-3.0, 0.125), summary_of(-1.5, 0.5)), step(0.01), TIMES, evaluation)
    assert "return -3 -> -1.5, success 12% -> 50%, kl 0.0100, 2,500 steps/s" in terminal.getvalue()
    assert "  evaluation after 0, 1, 2, … updates: -3.000, -2.000\n" in terminal.getvalue()
    assert "1/4" in terminal.getvalue()
    quiet = shown(Terminal(), quiet=True)
    assert quiet.startswith("iteration 0: ") and "\r" not in quiet


def test_duration():
    assert [console.duration(seconds) for seconds in (0, 59.2, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]


def test_the_end_of_a_run(tiny):
    pipe = io.StringIO()
    logs = tiny.run("navigation")
    saves = only_run(tiny.folder / "navigation" / "saves")
    console.Console(Config(num_batches=2), stream=pipe).finish(Folders(logs, saves))
    lines = pipe.getvalue().splitlines()
    assert lines[:2] == [f"logs: {logs}", f"policies: {saves}"]
    assert lines[2].startswith("evaluate with: python test.py ") and "policy-1.pt" in lines[2]
    # Of the other lines tests/run/test_summary.py has more. Nothing is compared with a run of another size.
    assert lines[3:] == summary(logs) and not any("reference" in line for line in lines)
