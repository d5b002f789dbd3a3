"""`make bench-cuda` does what it says; without a GPU it says so."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.devices import DEVICES
from tests.support.helpers import ROOT

TINY = "--meta-batch-size 3 --fast-batch-size 2 --hidden-size 8 --num-workers 1 --tasks-per-group 3"


def bench_cuda(*options, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_cuda", *options],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, timeout=600,
    )  # fmt: skip


@pytest.mark.slow
@DEVICES
def test_it_prints_a_table(device):
    line = ["--cases", "navigation", "--iterations", "1", "--warm-up", "1", "--sizes", TINY, "--device", device]
    done = bench_cuda(*line)
    assert done.returncode == 0, done.stderr
    assert "golden figures, all within their bounds" in done.stdout
    heading, rule, row = (line.split("|") for line in done.stdout.splitlines() if line.startswith("|"))
    assert len(heading) == len(rule) == len(row)
    cells = dict(zip([cell.strip() for cell in heading], [cell.strip() for cell in row], strict=True))
    assert cells["command"] == "navigation"
    assert re.fullmatch(r"\d+% of [\d.]+ TFLOP/s", cells["share of the float32 limit"])
    assert all(float(cells[name]) > 0 for name in ("sampling, s", "learning, s", "CPU: float32 − float64"))
    # Rounding moves so short a step by less than its thousandth part.
    assert float(cells["GPU − CPU"]) < 1e-3 and float(cells["CPU: float32 − float64"]) < 1e-3
    assert int(cells["operators"].replace(",", "")) > 1000
    assert (int(cells["kernels"].replace(",", "")) > 1000) == (device == "cuda")


@pytest.mark.slow
def test_a_row_that_fails_leaves_the_others():
    sizes = f"{TINY} --env-config-path rl/envs/ctgraph/ctgraph_d2.json"
    line = ["--cases", "navigation", "ctgraph_d2", "--iterations", "1", "--warm-up", "0", "--device", "cpu"]
    done = bench_cuda(*line, "--sizes", sizes)
    assert done.returncode == 1
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[-2:]] == ["---", "ctgraph_d2"]
    assert "\nrl.errors.UserError: environment 2DNavigation-v0 takes no configuration file" in done.stderr
    assert "\nbench_cuda.py: navigation: exit status 1\n" in done.stderr


@pytest.mark.slow
def test_without_a_gpu_it_says_so():
    done = bench_cuda(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench_cuda.py: --device cuda: no CUDA device is available")
