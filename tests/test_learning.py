"""A tiny problem is really learnt: a wrong sign anywhere passes many unit tests, but not this one."""

import pytest

from rl.main import program as main
from tests.support.helpers import only_run
from tests.torture import into, progress

SMALL = [
    "--num-context-params", "5", "--hidden-size", "16", "--fast-lr", "0.5", "--meta-batch-size", "10",
    "--fast-batch-size", "10", "--num-batches", "20",
    "--num-test-tasks", "1", "--test-batch-size", "10", "--num-test-steps", "1",
    "--test-freq", "99", "--save-freq", "99", "--num-workers", "2",
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)]])
def test_navigation_is_learnt(tmp_path, seed):
    assert main([*SMALL, "--seed", str(seed), *into(tmp_path)]) == 0
    table = progress(only_run(tmp_path / "logs"))
    before, after = (table[f"running_returns/{name}"].to_numpy() for name in ("before_update", "after_update"))
    # Goals hidden at about 0.4 from the start: standing still for 100 steps earns about −38, and no policy can do much
    # better before it adapts. One update must learn where the goal is, in every one of the last iterations.
    assert (after[-5:] > before[-5:]).all(), (before, after)
    assert after[-5:].mean() > before[-5:].mean() + 10
    assert after[-5:].mean() > after[:3].mean() + 10
