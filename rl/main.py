"""Meta-train a policy: sample, adapt, sample, step, log, save.

python main.py --env-name 2DNavigation-v0 --neuromodulation --nm-size 4 ...
python main.py --resume logs/<env>/<method>/<run>
"""

import os
import sys

if __name__ == "__main__":
    if not __package__:  # run as `python main.py`: the package stands one folder up
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from rl import start

    sys.exit(start.run("main"))

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rl import streams
from rl.algorithm.metalearner import MetaLearner
from rl.evaluation.evaluate import Evaluated
from rl.evaluation.gates import gate_curves
from rl.ranks import Ranks
from rl.run import agreement, resume
from rl.run.interrupts import Interrupted, Interrupts, exit_status
from rl.run.setup import Setup
from rl.run.shares import Shares
from rl.run.training_run import TrainingRun


def main(command_line: Sequence[str] | None = None) -> Path | None:
    """Meta-train as a command line says: the run's log folder; None in a process of torchrun that does not write.

    Raises:
        UserError: bad input, or a run that cannot go on.
        WorkerError: an exception in the environment.
        KeyboardInterrupt: Ctrl-C, once what was reached is saved.

    Usage: run = rl.main.main(["--env-name", "2DNavigation-v0", "--num-batches", "20"])
    """
    threads = torch.get_num_threads()
    try:
        with Interrupts("WORLD_SIZE" not in os.environ) as interrupts:
            return run(command_line, interrupts)
    except Interrupted as interrupted:
        raise KeyboardInterrupt from interrupted
    finally:
        torch.set_num_threads(threads)


def program(command_line: Sequence[str] | None = None) -> int:
    """The same for a console: errors become one line and an exit status."""

    def finished(interrupts: Interrupts) -> int:
        run(command_line, interrupts)
        return 0

    return exit_status("main.py", finished, alone="WORLD_SIZE" not in os.environ)


def run(command_line: Sequence[str] | None, interrupts: Interrupts) -> Path | None:
    """Make what the command line describes and meta-train, from the beginning or from a run's last state."""
    torch.set_num_threads(1)
    ranks = Ranks()
    ranks.join()
    config, folders = resume.choose(command_line)
    setup = Setup(config, ranks=ranks)
    setup.check(new=folders is None)
    learner = setup.learner()
    ranks.agree(agreement.facts(config, folders, learner.compute.device.type))
    closing = contextlib.closing(setup)
    with closing, TrainingRun(setup, folders, interrupts) as training_run, setup.sampler() as shares:
        train(setup, shares, learner, training_run)
    ranks.leave()
    return training_run.folders.logs.resolve() if ranks.leads else None


def train(setup: Setup, shares: Shares, learner: MetaLearner, training_run: TrainingRun) -> None:
    """The algorithm: sample tasks; of each, sample episodes, adapt, and sample again; one outer step; log and save."""
    config, params, learner.state = setup.config, training_run.state.params, training_run.state.outer_state
    for iteration in range(training_run.state.iteration, config.num_batches):
        times: dict[str, float] = {}
        with timed(times, "sampling"):
            tasks = setup.sample_tasks(config.meta_batch_size, "train", iteration, streams.TRAIN)
            # The workers sample with θ, update φ (with MAML a copy of θ) task by task, and sample with that.
            stream = setup.stream(iteration, streams.TRAIN)
            rollouts = shares.sample(params, tasks, setup.train_plan(), stream, setup.tasks_per_block)
        assert rollouts is not None  # `Setup.check`: every rank has a share
        with timed(times, "learning"):
            # Through the update: θ that lowers the surrogate loss of the episodes after it.
            params, step = learner.step(params, *rollouts.episodes)
        evaluated = None
        if iteration % config.test_freq == 0 or iteration == config.num_batches - 1:
            evaluated = evaluate_on_test_tasks(setup, shares, params, iteration)
        training_run.record(iteration, params, learner.state, step, rollouts, times, evaluated, shares)


def evaluate_on_test_tasks(setup: Setup, shares: Shares, params: dict[str, Tensor], iteration: int) -> Evaluated:
    """Adapt to test tasks, and see what the gates do on the first group of them."""
    config, plan = setup.config, setup.test_plan()
    times: dict[str, float] = {}
    tasks = setup.sample_tasks(config.test_tasks, "test", iteration, streams.EVALUATE)
    with timed(times, "evaluation"):
        stream = setup.stream(iteration, streams.EVALUATE)
        rollouts = shares.sample(params, tasks, plan, stream, config.tasks_per_group)
        summaries = shares.summaries(rollouts)
    gates = {}
    if rollouts is not None and setup.ranks.leads:
        first_group = rollouts.tasks(0, min(config.tasks_per_group, len(tasks)))
        gates = gate_curves(setup.policy, params, first_group, plan, config.seed)
    return Evaluated(tasks, summaries, times["evaluation"], gates)


@contextlib.contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    """Note in `times` how many seconds a block takes."""
    started = time.perf_counter()
    yield
    times[name] = time.perf_counter() - started
