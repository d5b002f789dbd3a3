import pytest

from rl import streams
from rl.config import parse_options
from rl.evaluation.recordings import gate_curves
from rl.experiment.build import Experiment
from rl.sampling.rollout import meta_rollout


@pytest.mark.parametrize("options", [[], ["--neuromodulation", "--nm-size", "3"]])
def test_gate_curves(options):
    config = parse_options(
        [*options, "--hidden-size", "6", "--fast-batch-size", "2", "--num-test-steps", "2", "--tasks-per-group", "3"]
    )
    experiment = Experiment(config)
    params = experiment.initial_params()

    tasks = experiment.sample_tasks(3, "test", 0, streams.EVALUATE)
    env, sampling = type(experiment.env)(3 * 2), experiment.test_sampling()
    phases = meta_rollout(env, experiment.policy, params, tasks, sampling, experiment.origin(0, streams.EVALUATE))
    found = gate_curves(experiment.policy, params, phases, sampling, config.seed)
    if not options:
        assert found == {}
        return
    names = ("negative", "saturated", "constant", "flips_between_tasks", "flips_between_steps")
    assert set(found) == {f"gates/layer{layer}/{name}" for layer in (1, 2) for name in names}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["gates/layer1/saturated"] == 1.0  # hard gates
