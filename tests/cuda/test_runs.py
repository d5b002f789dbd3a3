"""Whole runs with the outer step on a GPU. Every test runs on the CPU too, which proves its code."""

import pytest
import torch

from rl import main, test
from rl.algorithm.chunks import Chunk
from tests.support.devices import DEVICES
from tests.support.helpers import only_run
from tests.support.tiny_runs import GRAPH, SMALL

LINES = {
    "navigation": [*SMALL, "--neuromodulation", "--nm-gate", "soft", "--save-freq", "1"],
    "graph": [*SMALL, *GRAPH, "--neuromodulation", "--nm-gate", "ste", "--save-freq", "1"],
}


def train(folder, *line):
    """Run main.py: (its log folder, its folder of policies)."""
    assert main.program([*line, "--logdir", str(folder / "logs"), "--savedir", str(folder / "saves")]) == 0
    return only_run(folder / "logs"), only_run(folder / "saves")


def policies(saves):
    """The bytes of all policies of a run."""
    return {path.name: path.read_bytes() for path in saves.glob("policy-*.pt")}


@pytest.mark.parametrize(
    "name, device", [("graph", "cpu"), *(pytest.param(name, "cuda", marks=pytest.mark.cuda) for name in LINES)]
)
def test_a_run_repeats_itself_resumes_and_is_evaluated(tmp_path, capsys, name, device):
    line = [*LINES[name], "--device", device]
    logs, saves = train(tmp_path / "one", *line)
    found = policies(saves)
    assert sorted(found) == ["policy-0.pt", "policy-1.pt"]
    for path in saves.glob("policy-*.pt"):
        # Loaded without saying where to: tensors go where they were.
        loaded = torch.load(path, weights_only=True)
        assert {value.device.type for value in loaded.values()} == {"cpu"}
        assert all(torch.isfinite(value).all() for value in loaded.values())
    # The same command again.
    assert policies(train(tmp_path / "two", *line)[1]) == found
    # The first half of it, then the rest.
    half, half_saves = train(tmp_path / "half", *line, "--num-batches", "1")
    assert policies(half_saves) == {"policy-0.pt": found["policy-0.pt"]}
    savedir = str(tmp_path / "half" / "saves")
    assert main.program(["--resume", str(half), "--num-batches", "2", "--savedir", savedir]) == 0
    assert policies(half_saves) == found
    # test.py samples on the CPU, wherever the run learnt.
    evaluation = [str(logs / "config.json"), str(saves / "policy-1.pt"), "--num-workers", "1"]
    assert test.main([*evaluation, "--logdir", str(tmp_path / "evaluation")]) == 0
    assert "return on" in capsys.readouterr().out


@DEVICES
def test_a_run_goes_on_without_the_gpu(tmp_path, device):
    logs, saves = train(tmp_path, *LINES["navigation"], "--num-batches", "1", "--device", device)
    line = ["--resume", str(logs), "--num-batches", "2", "--device", "cpu", "--savedir", str(tmp_path / "saves")]
    assert main.program(line) == 0
    assert sorted(policies(saves)) == ["policy-0.pt", "policy-1.pt"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["PyTorch", "CUDA", "cuBLAS"],
)
def test_a_full_gpu_is_one_line_and_the_run_goes_on(tmp_path, capsys, monkeypatch, error):
    """In the second iteration; nothing of the first is lost."""
    evaluate, count = Chunk.evaluate, []

    def full(chunk, theta):
        if only_run(tmp_path / "saves").joinpath("policy-0.pt").exists() and not count:
            count.append(1)
            raise error
        return evaluate(chunk, theta)

    monkeypatch.setattr(Chunk, "evaluate", full)
    line = [*LINES["navigation"], "--logdir", str(tmp_path / "logs"), "--savedir", str(tmp_path / "saves")]
    assert main.program(line) == 1
    *_, resuming, told = capsys.readouterr().err.splitlines()
    assert resuming.startswith("resume with: ")
    assert told.startswith("main.py: the GPU has not enough memory for the outer step; a smaller --learner-memory may")
    assert main.program([*line, "--resume", "auto"]) == 0
    assert sorted(policies(only_run(tmp_path / "saves"))) == ["policy-0.pt", "policy-1.pt"]
