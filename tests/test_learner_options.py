"""The two options that make the outer step cheaper, from the command line: one changes nothing, the other not much."""

import pytest

from rl.algorithm.terms import Term
from rl.main import program as main
from tests.support.helpers import only_run
from tests.torture import into, progress

SMALL = [
    "--num-context-params", "3", "--hidden-size", "8", "--fast-lr", "0.5", "--meta-batch-size", "3",
    "--fast-batch-size", "4", "--num-batches", "2",
    "--num-test-tasks", "1", "--test-batch-size", "4", "--num-test-steps", "1",
    "--num-workers", "0", "--neuromodulation", "--nm-size", "3", "--nm-gate", "soft",
]  # fmt: skip


def trained(folder, *options):
    """The policies of a short run: file name -> bytes."""
    assert main([*SMALL, *options, *into(folder)]) == 0
    return {path.name: path.read_bytes() for path in only_run(folder / "saves").glob("policy-*.pt")}


@pytest.fixture
def kept(monkeypatch):
    """Whether each chunk kept its curvature."""
    found = []

    def noted(*arguments):
        curvature = keep(*arguments)
        found.append(curvature is not None)
        return curvature

    keep = Term._kept
    monkeypatch.setattr(Term, "_kept", noted)
    return found


@pytest.mark.parametrize("adaptation", [[], ["--maml"]], ids=["cavia", "maml"])
def test_neither_a_whole_sample_nor_little_memory_nor_threads_change_a_byte(tmp_path, kept, adaptation):
    reference = trained(tmp_path / "reference", *adaptation)
    assert len(reference) == 2 and all(kept)
    assert trained(tmp_path / "whole", *adaptation, "--fvp-subsample", "1.0") == reference
    assert trained(tmp_path / "one", *adaptation, "--learner-threads", "1") == reference
    assert trained(tmp_path / "three", *adaptation, "--learner-threads", "3") == reference
    assert all(kept)
    kept.clear()
    # A byte, and no chunk fits.
    assert trained(tmp_path / "little", *adaptation, "--learner-memory", "1e-9") == reference
    assert kept and not any(kept)
    part = trained(tmp_path / "part", *adaptation, "--fvp-subsample", "0.25")
    assert part != reference
    kept.clear()
    little = ["--learner-memory", "1e-9", "--fvp-subsample", "0.25"]
    assert trained(tmp_path / "little_part", *adaptation, *little) == part
    assert kept and not any(kept)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_quarter_of_the_steps_learns_navigation_as_well(tmp_path, seed):
    larger = ["--hidden-size", "32", "--meta-batch-size", "15", "--fast-batch-size", "15", "--num-batches", "25",
              "--num-workers", "2", "--test-freq", "99", "--save-freq", "99", "--seed", str(seed)]  # fmt: skip
    ends = []
    for fraction in ("1.0", "0.25"):
        folder = tmp_path / fraction
        trained(folder, *larger, "--fvp-subsample", fraction)
        after = progress(only_run(folder / "logs"))["running_returns/after_update"].to_numpy()
        assert after[-5:].mean() > after[0] + 20
        ends.append(after[-5:].mean())
    # Two seeds differ by two or three.
    assert abs(ends[0] - ends[1]) < 5, ends
