"""Meta-train a policy: sample, adapt, sample, step, log, save.

python main.py --env-name 2DNavigation-v0 --neuromodulation --nm-size 4 ...
python main.py --resume logs/<env>/<method>/<run>
"""

import _signal
import os
import sys

if __name__ == "__main__":
    # Until a run handles Ctrl-C, it ends the process without a word: imports take a while. No file of a user's can hide
    # a built-in module.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if not __package__:  # run as `python main.py`: the package stands one folder up
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from rl import start

    start.program()

# isort: split
import contextlib
import time

import torch

from rl import streams
from rl.evaluation.evaluate import Evaluated
from rl.evaluation.gates import gate_curves
from rl.ranks import Ranks
from rl.run import agreement, resources
from rl.run.build import Setup
from rl.run.console import Console
from rl.run.folders import Folders
from rl.run.interrupts import exit_status
from rl.run.team import Team
from rl.run.training_run import TrainingRun


def main(command_line=None):
    """Parse, train, and turn errors into one line and an exit status."""
    ranks = Ranks()
    return exit_status("main.py", lambda interrupts: run(command_line, ranks, interrupts), ranks)


def run(command_line, ranks, interrupts):
    """Make what the command line describes and meta-train, from the beginning or from a run's last state.

    Args:
        command_line: list of str; None: the process's own.
        ranks: `Ranks`: rank 0 trains and writes, the others compute their share.
        interrupts: the entered `Interrupts`.

    Returns:
        The exit status.
    """
    torch.set_num_threads(1)
    ranks.join()
    config, folders, env_options = agreement.choose(command_line, ranks)
    experiment = Setup(config, env_options=env_options, ranks=ranks)
    resources.check(experiment.largest_share(), experiment.env, experiment.policy, num_processes=ranks.local_size)
    experiment.check_blocks()
    learner = experiment.learner()
    agreement.compare(ranks, {"--device": learner.blocks.device.type})
    experiment.first_tasks("--meta-batch-size", config.meta_batch_size, "train", streams.TRAIN)
    experiment.first_tasks("--test-batch-size", config.test_batch_size, "test", streams.EVALUATE)
    if ranks.rank == 0:
        lead(experiment, learner, folders, interrupts)
    else:
        with Team(experiment, learner) as team:
            team.serve()
    ranks.leave()
    return 0


def lead(experiment, learner, folders, interrupts):
    """Train, and write all that a run writes.

    Args:
        experiment: `Setup`.
        learner: its `MetaLearner`.
        folders: the `Folders` of the run to resume, or None.
        interrupts: the entered `Interrupts`.
    """
    config, resumed = experiment.config, folders is not None
    folders = folders or Folders.make(config)
    with folders.claimed():
        with interrupts.shield():
            training_run = TrainingRun(experiment, folders, resumed)
        with training_run, Console(config, training_run.state.iteration) as console:
            console.introduce(experiment.policy.architecture, folders)
            with Team(experiment, learner, training_run.state.counters.worker_restarts) as team:
                train(experiment, team, training_run, console, interrupts)
        console.finish(folders)


def train(experiment, team, training_run, console, interrupts):
    """The algorithm: sample tasks; of each, sample episodes, adapt, and sample again; one outer step; log and save."""
    config, params = experiment.config, training_run.state.params
    for iteration in range(training_run.state.iteration, config.num_batches):
        times = {}
        with timed(times, "sampling"):
            tasks = experiment.sample_tasks(config.meta_batch_size, "train", iteration, streams.TRAIN)
            # The workers sample with θ, update φ (with MAML a copy of θ) task by task, and sample with that.
            origin = experiment.origin(iteration, streams.TRAIN)
            summaries = team.sample(params, tasks, experiment.train_sampling(), origin, experiment.tasks_per_block)
        with timed(times, "learning"):
            # TRPO through the update: θ that lowers the surrogate loss of the episodes after it.
            params, step = team.step(params)
        refused = team.phases() if step.rejected_nonfinite and training_run.records_flights else None
        evaluation = None
        if iteration % config.test_freq == 0:
            evaluation = evaluate_on_test_tasks(experiment, team, params, iteration)
        with interrupts.shield():
            training_run.log(iteration, summaries, step, times, team.restarts, evaluation, refused)
            training_run.save(iteration, params)
        console.iteration(iteration, summaries, step, times, evaluation)
        training_run.check(console)


def evaluate_on_test_tasks(experiment, team, params, iteration):
    """Adapt to test tasks: `Evaluated`, with what the gates do on the first group of tasks."""
    config, sampling, times = experiment.config, experiment.test_sampling(), {}
    tasks = experiment.sample_tasks(config.test_batch_size, "test", iteration, streams.EVALUATE)
    with timed(times, "evaluation"):
        origin = experiment.origin(iteration, streams.EVALUATE)
        summaries = team.sample(params, tasks, sampling, origin, config.tasks_per_group)
    first_group = team.share.phases.tasks(0, min(config.tasks_per_group, len(tasks)))
    gates = gate_curves(experiment.policy, params, first_group, sampling, config.seed)
    return Evaluated(tasks, summaries, times["evaluation"], gates)


@contextlib.contextmanager
def timed(times, name):
    """Note in `times` how many seconds a block takes."""
    started = time.perf_counter()
    yield
    times[name] = time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
