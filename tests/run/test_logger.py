"""TensorBoard's charts and its table of runs."""

import dataclasses

from tensorboardX.proto.layout_pb2 import Layout
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from rl.config import NEUTRAL, parse_options
from rl.run import logger


def test_charts():
    (value,) = logger.charts(2).value
    layout = Layout.FromString(value.tensor.string_val[0])
    charts = [list(chart.multiline.tag) for chart in layout.category[0].chart]
    assert charts[0] == ["running_returns/before_update", "running_returns/after_update"]
    assert charts[1] == [f"evaluation_rew/avg_rew {updates}" for updates in range(3)]


def test_hparams():
    config = parse_options(["--neuromodulation", "--num-test-steps", "2"])
    experiment, start = logger.hparams(config)
    assert experiment.value[0].tag == "_hparams_/experiment" and start.value[0].tag == "_hparams_/session_start_info"
    described = experiment.value[0].metadata.plugin_data.content
    for word in (b"running_returns/after_update", b"evaluation_rew/avg_rew 2", b"fast_lr", b"method"):
        assert word in described
    told = {field.name for field in dataclasses.fields(config)} - NEUTRAL
    session = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content).session_start_info
    assert set(session.hparams) == told | {"method"}
