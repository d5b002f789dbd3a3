"""What a GPU does for the outer step, in one go: rows of Markdown for docs/gpu.md.

    python -m benchmarks.bench_cuda [--cases [navigation ctgraph_d2 ...]] [--iterations 5]

First the golden figures of the published algorithm, in float64 on the GPU. Then the commands of docs/experiments.md,
each with `--device cuda` and a worker for each core: seconds an iteration (median over the counted ones), split into
sampling and learning; the share of the learning time that its matrix multiplications alone would take at the GPU's
float32 rate, measured in the same run; the peak of the GPU's memory; how often a step calls an operator and starts a
kernel; the seconds of the same step on the CPU. Last, how far the GPU's step and the CPU's lie apart, relative, and
beside it how far float32 and float64 do on the CPU: after three iterations of conjugate gradient, since ten amplify
rounding a thousandfold.

`--device cpu` and smaller `--sizes` test the program itself.
"""

import argparse
import contextlib
import copy
import dataclasses
import os
import sys

# Prepares the process, before torch is imported.
from benchmarks import bench

# isort: split
import torch
from torch.profiler import ProfilerActivity, profile

from rl.algorithm.jacobian import flatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.trpo import TRPO
from rl.config import Parser, parse_options
from rl.errors import UserError
from rl.run import device as devices
from tests import conformance

COLUMNS = (
    "command", "sampling, s", "learning, s", "share of the float32 limit", "GPU memory", "operators", "kernels",
    "the step on the CPU, s", "GPU − CPU", "CPU: float32 − float64",
)  # fmt: skip
# Rows besides the commands themselves: what one option does to Half-Cheetah.
VARIANTS = {"half_cheetah_dir": ("--tf32",)}


def main(command_line=None):
    """Print the header and the rows; returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(bench.CASES), choices=list(bench.CASES))
    parser.add_argument("--iterations", type=int, default=5, help="counted iterations of each case")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--sizes", default="", help="options of main.py that make the cases smaller")
    parser.add_argument("--warm-up", type=int, help="iterations before the counted ones, instead of each case's own")
    options = parser.parse_args(command_line)
    device = devices.chosen(options.device)
    if device.type == "cuda":
        devices.use_gpu(device, tf32=False)
    torch.set_num_threads(1)
    print(f"{name_of(device)}, torch {torch.__version__}\n", flush=True)
    agrees = golden(device)
    print("\n| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    pairs = [(name, extra) for name in options.cases for extra in ("", *VARIANTS.get(name, ()))]
    status = bench.all_alone(report, [(f"{name} {extra}".strip(), name, extra, options) for name, extra in pairs])
    return status if agrees else 1


def name_of(device):
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def golden(device):
    """Print how the device does on the golden figures; whether all are within their bounds."""
    rows = [
        (deviation / bound, f"{path.stem}, {name}: {deviation:.1e} of {bound:.0e}")
        for path in sorted((bench.ROOT / "tests/golden").glob("*.npz"))
        for name, deviation, bound in conformance.deviations(path, device)
    ]
    share, worst = max(rows)
    verdict = "all within their bounds" if share <= 1 else "TOO LARGE"
    print(f"{len(rows)} golden figures, {verdict}; the nearest to its bound: {worst}", flush=True)
    return share <= 1


def report(title, name, extra, options):
    """Run one case and print its row."""
    torch.set_num_threads(1)
    text, warm_up = bench.CASES[name]
    line = f"{bench.COMMON} {text} {extra} --num-workers {os.cpu_count()} --device {options.device} {options.sizes}"
    if options.warm_up is not None:
        warm_up = options.warm_up
    config, unwatched = parse_options(line.split()), contextlib.nullcontext()
    figures = bench.measure(config, warm_up, options.iterations, False, unwatched, examine)
    torch.backends.cuda.matmul.allow_tf32 = False  # the limit is float32's, whatever the case has asked for
    rate = bench.gemm_rate(device=options.device)
    cells = (
        title,
        f"{figures['sampling']:.3f}",
        f"{figures['learning']:.3f}",
        f"{figures['flops'] / rate / figures['learning']:.0%} of {rate / 1e12:.1f} TFLOP/s",
        f"{figures['memory'] / 1e9:.1f} GB",
        f"{figures['operators']:,}",
        f"{figures['kernels']:,}",
        f"{figures['on the CPU']:.1f}",
        f"{figures['from the CPU']:.1e}",
        f"{figures['rounding']:.1e}",
    )
    print("| " + " | ".join(cells) + " |", flush=True)


def examine(setup, learner, params, rollouts):
    """Figures of one step: the GPU's memory, operators and kernels, and the same step on the CPU."""
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    with bench.in_this_thread(learner):
        operators, kernels = calls(lambda: learner.step(params, *rollouts.episodes))
    here = copy.copy(setup)
    here.config = dataclasses.replace(setup.config, device="cpu")
    started = bench.now()
    here.learner().step(params, *rollouts.episodes)
    seconds = bench.now() - started

    def change(device, dtype):
        """θ's change [P] by a short step."""
        outer_step = TRPO(setup.outer_options._replace(cg_iters=3))
        old = {name: value.double() for name, value in params.items()}
        short = MetaLearner(setup.policy, setup.options, outer_step, dtype=dtype, device=device)
        new, _ = short.step(old, *rollouts.episodes)
        return flatten(new) - flatten(old)

    single = change("cpu", torch.float32)
    return {
        "memory": memory,
        "operators": operators,
        "kernels": kernels,
        "on the CPU": seconds,
        "from the CPU": distance(change(devices.chosen(setup.config.device), torch.float32), single),
        "rounding": distance(single, change("cpu", torch.float64)),
    }


def calls(function):
    """(operators that a function calls, and those that they call; kernels that it starts on the GPU)"""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_initialized()
    with profile(activities=activities, acc_events=True) as seen:
        function()
    counts = {event.key: event.count for event in seen.key_averages()}
    operators = sum(count for key, count in counts.items() if key.startswith("aten::"))
    return operators, sum(count for key, count in counts.items() if "LaunchKernel" in key)


def distance(left, right):
    """Between two changes of θ, relative to the second; nan where no step was taken."""
    return float((left - right).norm() / right.norm())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"bench_cuda.py: {error}", file=sys.stderr)
        sys.exit(2)
