import dataclasses
import io
from types import SimpleNamespace

import pytest
from tensorboardX.proto.layout_pb2 import Layout
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from rl.config import NEUTRAL, parse_options
from rl.evaluation.evaluate import evaluate
from rl.experiment import console, standing
from rl.experiment.build import Parts
from tests.support.helpers import only_run
from tests.support.in_process import InProcessSampler


class Terminal(io.StringIO):
    def isatty(self):
        return True


TIMES = {"sampling": 2.0, "learning": 1.0}


def test_plain_lines_on_a_pipe():
    pipe = io.StringIO()
    told = console.Progress(total=4, start=2, stream=pipe)
    told.iteration(2, (-3.0, -1.5), 0.01, 5000, TIMES)
    told.iteration(3, (-2.0, -1.0), 0.01, 5000, TIMES, success=(0.125, 0.5))
    told.close()
    first, second = pipe.getvalue().splitlines()
    assert first.startswith("iteration 2: return -3.000 -> -1.500, kl 0.0100, sampling 2.00 s, learning 1.00 s, 2500 ")
    assert second.startswith("iteration 3: return -2.000 -> -1.000, success rate 12.5% -> 50.0%, kl 0.0100, sampling ")
    assert second.endswith("2500 steps/s, 0:00:00 left")


@pytest.mark.parametrize("kl, words", [(None, "no step accepted"), (0.01, "kl 0.0100"), (1.23e-5, "kl 1.2e-05")])
def test_no_step_is_told_from_a_small_one(kl, words):
    for stream in (io.StringIO(), Terminal()):
        told = console.Progress(total=1, stream=stream)
        told.iteration(0, (0.0, 0.0), kl, 1, TIMES)
        told.close()
        assert f", {words}, " in stream.getvalue() and "0.0000" not in stream.getvalue()


def test_a_bar_on_a_terminal_unless_quiet():
    terminal = Terminal()
    told = console.Progress(total=4, stream=terminal)
    told.iteration(0, (-3.0, -1.5), 0.01, 5000, TIMES, success=(0.1, 0.5))
    told.note("evaluated")
    told.close()
    assert "return -3 -> -1.5, success 10% -> 50%, kl 0.0100, 2,500 steps/s" in terminal.getvalue()
    assert "evaluated\n" in terminal.getvalue() and "1/4" in terminal.getvalue()
    quiet = Terminal()
    console.Progress(total=4, quiet=True, stream=quiet).iteration(0, (-3.0, -1.5), 0.01, 5000, TIMES)
    assert quiet.getvalue().startswith("iteration 0: ") and "\r" not in quiet.getvalue()


def test_duration():
    assert [console.duration(seconds) for seconds in (0, 59.2, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]


def test_the_last_words(tiny):
    pipe = io.StringIO()
    logs = tiny.run("navigation")
    saves = only_run(tiny.folder / "navigation" / "saves")
    folders = SimpleNamespace(logs=logs, saves=saves, policy=lambda iteration: saves / f"policy-{iteration}.pt")
    console.Progress(total=2, stream=pipe).finish(folders, 1)
    lines = pipe.getvalue().splitlines()
    assert lines[:2] == [f"logs: {logs}", f"policies: {saves}"]
    assert lines[2].startswith("evaluate with: python test.py ") and "policy-1.pt" in lines[2]
    # Of the other lines tests/experiment/test_standing.py has more. Nothing is compared with a run of another size.
    assert lines[3:] == standing.last_words(logs) and not any("reference" in line for line in lines)


def test_layout():
    (value,) = console.layout(2).value
    layout = Layout.FromString(value.tensor.string_val[0])
    charts = [list(chart.multiline.tag) for chart in layout.category[0].chart]
    assert charts[0] == ["running_returns/before_update", "running_returns/after_update"]
    assert charts[1] == [f"evaluation_rew/avg_rew {updates}" for updates in range(3)]


def test_hparams():
    config = parse_options(["--neuromodulation", "--num-test-steps", "2"])
    experiment, start = console.hparams(config)
    assert experiment.value[0].tag == "_hparams_/experiment" and start.value[0].tag == "_hparams_/session_start_info"
    described = experiment.value[0].metadata.plugin_data.content
    for word in (b"running_returns/after_update", b"evaluation_rew/avg_rew 2", b"fast_lr", b"method"):
        assert word in described
    told = {field.name for field in dataclasses.fields(config)} - NEUTRAL
    session = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content).session_start_info
    assert set(session.hparams) == told | {"method"}


@pytest.mark.parametrize("options", [[], ["--neuromodulation", "--nm-size", "3"]])
def test_gate_summary(options):
    config = parse_options(
        [*options, "--hidden-size", "6", "--fast-batch-size", "2", "--num-test-steps", "2", "--tasks-per-group", "3"]
    )
    parts = Parts(config)
    params = parts.initial_params()
    _, phases = evaluate(parts, InProcessSampler(parts.setting), params, 0, 4)
    found = console.gate_summary(parts, params, phases)
    if not options:
        assert found == {}
        return
    names = ("negative", "saturated", "constant", "flips_between_tasks", "flips_between_steps")
    assert set(found) == {f"gates/layer{layer}/{name}" for layer in (1, 2) for name in names}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["gates/layer1/saturated"] == 1.0  # hard gates
