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
from rl.evaluation.evaluate import evaluate
from rl.evaluation.recordings import gate_curves
from rl.experiment import resources, resume
from rl.experiment.build import Experiment
from rl.experiment.console import Console
from rl.experiment.folders import Folders
from rl.experiment.interrupts import exit_status
from rl.experiment.training_run import TrainingRun


def main(command_line=None):
    """Parse, train, and turn errors into one line and an exit status."""
    return exit_status("main.py", lambda interrupts: run(*resume.choose(command_line), interrupts))


def run(config, folders, interrupts):
    """Make what a `Config` describes and meta-train, from the beginning or from a run's last state.

    Args:
        config: `Config`.
        folders: the `Folders` of the run to resume, or None.
        interrupts: the entered `Interrupts`.

    Returns:
        The exit status.
    """
    torch.set_num_threads(1)
    experiment = Experiment(config)
    resources.check(config, experiment.env, experiment.policy)
    learner = experiment.learner()
    experiment.first_tasks("--meta-batch-size", config.meta_batch_size, "train", streams.TRAIN)
    experiment.first_tasks("--test-batch-size", config.test_batch_size, "test", streams.EVALUATE)
    resumed = folders is not None
    folders = folders or Folders.make(config)
    with folders.claimed():
        with interrupts.shield():
            training_run = TrainingRun(experiment, folders, resumed)
        with training_run, Console(config, training_run.state.iteration) as console:
            console.introduce(experiment.policy.architecture, folders)
            train(experiment, learner, training_run, console, interrupts)
        console.finish(folders)
    return 0


def train(experiment, learner, training_run, console, interrupts):
    """The algorithm: sample tasks; of each, sample episodes, adapt, and sample again; one outer step; log and save."""
    config, params = experiment.config, training_run.state.params
    with experiment.sampler() as sampler:
        sampler.restarts = training_run.state.counters.worker_restarts
        for iteration in range(training_run.state.iteration, config.num_batches):
            times = {}
            with timed(times, "sampling"):
                tasks = experiment.sample_tasks(config.meta_batch_size, "train", iteration, streams.TRAIN)
                # The workers sample with θ, update φ (with MAML a copy of θ) task by task, and sample with that.
                origin = experiment.origin(iteration, streams.TRAIN)
                phases = sampler.sample(params, tasks, experiment.train_sampling(), origin)
            with timed(times, "learning"):
                # TRPO through the update: θ that lowers the surrogate loss of the episodes after it.
                params, step = learner.step(params, *phases.episodes)
            evaluation = None
            if iteration % config.test_freq == 0:
                evaluation = evaluate_on_test_tasks(experiment, sampler, params, iteration)
            with interrupts.shield():
                training_run.log(iteration, phases, step, times, sampler.restarts, evaluation)
                training_run.save(iteration, params)
            console.iteration(iteration, phases.episodes, step, times, evaluation)
            training_run.check(console)


def evaluate_on_test_tasks(experiment, sampler, params, iteration):
    """Adapt to test tasks: `Evaluated`, with what the gates do on the first group of tasks."""
    config, sampling = experiment.config, experiment.test_sampling()
    tasks = experiment.sample_tasks(config.test_batch_size, "test", iteration, streams.EVALUATE)
    evaluated = evaluate(sampler, params, tasks, sampling, experiment.origin(iteration, streams.EVALUATE))
    first_group = evaluated.phases.tasks(0, min(config.tasks_per_group, len(tasks)))
    return evaluated._replace(gates=gate_curves(experiment.policy, params, first_group, sampling, config.seed))


@contextlib.contextmanager
def timed(times, name):
    """Note in `times` how many seconds a block takes."""
    started = time.perf_counter()
    yield
    times[name] = time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
