"""What the messages of an iteration cost, and what several machines would make of it.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.scaling     messages alone, measured
    python -m benchmarks.scaling --model                               seconds an iteration on 1 to 64 machines

Measured is all that the ranks of a run send each other in an iteration, with nothing computed in between: θ and tasks
out, summaries back; then a gradient, ten curvature products and two steps of the line search. The model takes the
seconds of sampling and learning of one machine from docs/speed.md, and adds messages over 10 Gbit/s.
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
from rl import streams
from rl.config import parse_options
from rl.evaluation.evaluate import Summary
from rl.ranks import Ranks, part
from rl.run.build import Setup
from rl.run.team import Share, Team

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
        experiment = Setup(parse_options(f"{COMMON} {CASES[name][0]} --num-workers 1".split()), ranks=ranks)
        if options.model:
            print(row(name, *(f"{modelled(experiment, name, count):.2f}" for count in MACHINES)), flush=True)
        else:
            measure(name, experiment, options.iterations)
    ranks.leave()


def row(*cells):
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


class Idle(Share):
    """Answers at once, with as many zeros as the real one has numbers."""

    def __init__(self, experiment):
        config, ranks = experiment.config, experiment.ranks
        self.block, self.size = experiment.tasks_per_block, experiment.policy.num_params
        start, stop = part(-(-config.meta_batch_size // self.block), ranks.rank, ranks.size)
        self.count = stop - start
        tasks = min(stop * self.block, config.meta_batch_size) - start * self.block
        returns = np.zeros((tasks, config.fast_batch_size))
        self.summary = Summary(returns, np.zeros(tasks, np.int64), np.zeros(tasks), {"any": returns > 0})
        self.losses = np.zeros(tasks, np.float32)

    def sample(self, *_):
        """As `Share.sample`."""
        return (self.summary, self.summary), 0

    def linearize(self, vector):
        """As `Share.linearize`."""
        return torch.zeros(self.count, 1 + self.size)

    def notes(self):
        """As `Share.notes`."""
        return self.losses, 0

    def product(self, vector):
        """As `Share.product`."""
        return torch.zeros(self.count, self.size)

    def evaluate(self, vector):
        """As `Share.evaluate`."""
        return torch.zeros(self.count, 2)

    def release(self):
        """As `Share.release`."""


class IdleTeam(Team):
    """Sends all messages of a `Team`, and computes nothing."""

    def __init__(self, experiment):
        self.ranks, self.share = experiment.ranks, Idle(experiment)
        self.ranks.use("cpu")
        self.restarts = self._restarts_before = 0

    def __exit__(self, *_):
        if self.ranks.rank == 0:
            self.ranks.broadcast(("end", ()))


def measure(name, experiment, iterations):
    """Print the messages of an iteration: median seconds, and bytes that reach rank 0 and each of the others."""
    config, ranks = experiment.config, experiment.ranks
    params = experiment.initial_params()
    theta = torch.cat([value.reshape(-1) for value in params.values()])
    tasks = experiment.sample_tasks(config.meta_batch_size, "train", 0, streams.TRAIN)
    origin = experiment.origin(0, streams.TRAIN)
    before, seconds = ranks.received, []
    with IdleTeam(experiment) as team:
        if ranks.rank > 0:
            team.serve()
        for _ in range(iterations if ranks.rank == 0 else 0):
            started = time.perf_counter()
            team.sample(params, tasks, experiment.train_sampling(), origin, experiment.tasks_per_block)
            team.linearize(theta)
            team.notes()
            for _ in range(PRODUCTS):
                team.product(theta)
            team.release()
            for _ in range(TRIALS):
                team.evaluate(theta)
            seconds.append(time.perf_counter() - started)
    received = ranks.gather((ranks.received - before) / iterations)
    if ranks.rank == 0:
        cells = (f"{received[0] / 1e6:.1f}", f"{received[-1] / 1e6:.1f}", f"{1e3 * statistics.median(seconds):.0f}")
        print(row(name, str(ranks.size), *cells), flush=True)


def modelled(experiment, name, machines):
    """Seconds of an iteration on machines like the one of docs/speed.md.

    Blocks are of five tasks as long as there are enough of them, else of one (`--tasks-per-group 1`). The machine with
    the most tasks is waited for. Rank 0 receives a row of each block of another machine, one after another, and sends θ
    from machine to machine, doubling their number in a message.
    """
    config, num_params = experiment.config, experiment.policy.num_params
    tasks = config.meta_batch_size
    block = experiment.tasks_per_block if machines <= math.ceil(tasks / experiment.tasks_per_block) else 1
    blocks = math.ceil(tasks / block)
    used = min(machines, blocks)
    compute = sum(ALONE[name]) * math.ceil(blocks / used) * block / tasks
    if used == 1:
        return compute
    rows = blocks * (1 - 1 / used) * (1 + PRODUCTS)  # of P numbers, to rank 0
    vectors = (2 + PRODUCTS + TRIALS) * math.ceil(math.log2(used))  # of P numbers, from it
    calls = 4 + PRODUCTS + TRIALS
    messages = calls * (3 * math.ceil(math.log2(used)) + 2 * (used - 1))
    return compute + 4 * num_params * (rows + vectors) / BANDWIDTH + messages * LATENCY


if __name__ == "__main__":
    main()
