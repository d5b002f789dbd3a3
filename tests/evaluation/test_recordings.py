import errno

import pytest

from rl import streams
from rl.config import parse_options
from rl.evaluation import gates, recordings
from rl.run.setup import Setup
from rl.sampling.rollout import meta_rollout
from tests.support.helpers import files_limited


def sampled(options):
    """The setup of a small policy, its θ, and three tasks with their rollouts and `AdaptationPlan`."""
    config = parse_options(
        [*options, "--hidden-size", "6", "--test-batch-size", "2", "--num-test-steps", "2", "--tasks-per-group", "3"]
    )
    setup = Setup(config)
    params = setup.initial_params()
    tasks = setup.sample_tasks(3, "test", 0, streams.EVALUATE)
    env, sampling = type(setup.env)(3 * 2), setup.test_plan()
    rollouts = meta_rollout(env, setup.policy, params, tasks, sampling, setup.stream(0, streams.EVALUATE))
    return setup, params, tasks, rollouts, sampling


@pytest.mark.parametrize("options", [[], ["--neuromodulation", "--nm-size", "3"]])
def test_gate_curves(options):
    setup, params, _, rollouts, sampling = sampled(options)
    found = gates.gate_curves(setup.policy, params, rollouts, sampling, setup.config.seed)
    if not options:
        assert found == {}
        return
    names = ("negative", "saturated", "constant", "flips_between_tasks", "flips_between_steps")
    assert set(found) == {f"gates/layer{layer}/{name}" for layer in (1, 2) for name in names}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["gates/layer1/saturated"] == 1.0  # hard gates


# Of 3 tasks, 100 steps, 1 episode, 3 rollouts and 12 units, float32 activations take 43,200 bytes, and those of 256
# probe observations 110,592; the episode itself takes 18,000, and φ 72.
@pytest.mark.parametrize(
    "name, num_episodes, room",
    [("contexts.npy", 0, 150), ("episodes.npz", 1, 10_000), ("activations.npy", 1, 43_000), ("probe.npz", 1, 110_000)],
)
def test_a_full_disk_is_told_of_by_the_name_of_the_file(tmp_path, name, num_episodes, room):
    setup, params, tasks, rollouts, sampling = sampled([])
    probe = recordings.draw_probe(0, rollouts, [0, 1, 2])
    with files_limited(room), pytest.raises(OSError) as raised:
        if name == "episodes.npz":
            recordings.write_episodes(tmp_path, rollouts.episodes, num_episodes)
        recordings.write(tmp_path, setup.policy, params, tasks, rollouts, sampling, 2, num_episodes, probe)
    assert (raised.value.filename, raised.value.errno) == (str(tmp_path / name), errno.EFBIG)
    assert not list(tmp_path.glob(f"{name}*"))
