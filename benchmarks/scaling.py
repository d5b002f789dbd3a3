"""What the messages of an iteration cost, and what several machines would make of it.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.scaling     messages alone, measured
    python -m benchmarks.scaling --model                               seconds an iteration on 1 to 64 machines

Measured is all that the ranks of a run send each other in an iteration, with nothing computed in between: summaries to
rank 0; then to all ranks the rows of all blocks, for a gradient, ten curvature products and two steps of the line
search. The model takes the seconds of sampling and learning of one machine from docs/speed.md, and adds messages over
10 Gbit/s.
"""

import argparse
import math
import statistics
import time

from rl import start

start.compute_alone()

# isort: split
import numpy as np
import torch

from benchmarks.bench import CASES, COMMON
from rl.config import parse_options
from rl.ranks import Ranks
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import Rollouts

NAMES = ("half_cheetah_dir", "ml45", "ctgraph_d4")
PRODUCTS, TRIALS = 10, 2  # of conjugate gradient; of the line search, about
# Seconds of (sampling, learning) of an iteration on one machine of two cores: docs/speed.md.
ALONE = {"half_cheetah_dir": (5.2, 20.8), "ml45": (16.0, 13.6), "ctgraph_d4": (0.10, 1.0)}
MACHINES = (1, 2, 4, 8, 16, 32, 64)
BANDWIDTH, LATENCY = 1.1e9, 100e-6  # bytes/s of 10 Gbit/s Ethernet, less what protocols take; s of a message


def main():
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="print the model instead of measuring")
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ranks = Ranks()
    ranks.join()
    for name in NAMES:
        # Without workers: nothing is sampled.
        setup = Setup(parse_options(f"{COMMON} {CASES[name][0]} --num-workers 0".split()), ranks=ranks)
        if options.model:
            print(row(name, *(f"{modelled(setup, name, count):.2f}" for count in MACHINES)), flush=True)
        else:
            measure(name, setup, options.iterations)
    ranks.leave()


def row(*cells):
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def lengths(num_params):
    """Numbers of a block's row in each sum of an iteration: losses and counts with the gradient, products, trials."""
    return [4 + num_params] + PRODUCTS * [num_params] + TRIALS * [2]


def measure(name, setup, iterations):
    """Print the messages of an iteration: bytes of sums that reach each rank, and median seconds at rank 0."""
    config, ranks = setup.config, setup.ranks
    unit = setup.tasks_per_block
    own = ranks.share(config.meta_batch_size, unit)
    num_tasks, most = own.stop - own.start, math.ceil(math.ceil(config.meta_batch_size / unit) / ranks.size)
    none = np.zeros((num_tasks, 1, config.fast_batch_size))
    episodes = Episodes(none[..., None], none, none, none + 1, {"success": none > 0})
    rollouts = Rollouts((episodes, episodes), np.zeros((1, num_tasks), np.float32), 0)
    sums = [torch.zeros(math.ceil(num_tasks / unit), length) for length in lengths(setup.policy.num_params)]
    seconds = []
    with setup.sampler() as shares:
        for _ in range(iterations):
            started = time.perf_counter()
            for rows in sums:
                ranks.ordered_sum(rows)
            shares.summaries(rollouts)
            shares.restarts()
            seconds.append(time.perf_counter() - started)
    received = 4 * (ranks.size - 1) * most * sum(lengths(setup.policy.num_params))
    if ranks.leads:
        print(
            row(name, str(ranks.size), f"{received / 1e6:.1f}", f"{1e3 * statistics.median(seconds):.0f}"), flush=True
        )


def modelled(setup, name, machines):
    """Seconds of an iteration on machines like the one of docs/speed.md.

    Blocks are of five tasks as long as there are enough of them, else of one (`--tasks-per-group 1`). The machine with
    the most tasks is waited for. The rows of all blocks go round in a ring: each machine receives those of all others,
    in as many messages as there are others, and the rows' numbers before.
    """
    tasks, num_params = setup.config.meta_batch_size, setup.policy.num_params
    block = setup.tasks_per_block if machines <= math.ceil(tasks / setup.tasks_per_block) else 1
    blocks = math.ceil(tasks / block)
    used = min(machines, blocks)
    most = math.ceil(blocks / used)
    compute = sum(ALONE[name]) * min(most * block, tasks) / tasks  # the last block may be smaller
    sent = 4 * (used - 1) * most * sum(lengths(num_params))
    messages = 2 * (used - 1) * (len(lengths(num_params)) + 2)  # with the summaries' and the restarts'
    return compute + sent / BANDWIDTH + messages * LATENCY


if __name__ == "__main__":
    main()
