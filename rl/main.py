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
import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any, NamedTuple

from rl import start, streams
from rl.config import Config
from rl.errors import UserError
from rl.experiment import resume
from rl.experiment.folders import Folders, deciding, extend_config, save_policy, write_config
from rl.experiment.interrupts import complain, exit_status
from rl.experiment.state import Counters, State, load_state, save_flight_record, save_state

MAX_REJECTED_IN_A_ROW = 10
MAX_FLIGHT_RECORDS = 3


class RunError(UserError):
    """A run cannot go on; its state is saved."""

    status = 1


def main(command_line=None):
    """Parse, train, and turn errors into a line and an exit status."""
    return exit_status("main.py", lambda interrupts: train(*resume.choose(command_line), interrupts))


def train(config, folders, interrupts):
    """Meta-train as a `Config` says, from the beginning or from a run's last state.

    Args:
        config: `Config`.
        folders: the `Folders` of the run to resume, or None.
        interrupts: the entered `Interrupts`.

    Returns:
        The exit status.
    """
    import torch

    from rl.experiment.build import Parts

    torch.set_num_threads(1)
    parts = Parts(config)
    parts.check_machine()
    learner = parts.learner()
    parts.check_tasks("--meta-batch-size", config.meta_batch_size, "train", streams.TRAIN)
    parts.check_tasks("--test-batch-size", config.test_batch_size, "test", streams.EVALUATE)
    resumed = folders is not None
    if not resumed:
        folders = Folders.make(config)
    with folders.claimed():
        with interrupts.shield():
            state, logger = begin(config, parts, folders, resumed)
        go_on(parts, learner, folders, state, logger, interrupts)
    return 0


def go_on(parts, learner, folders, state, logger, interrupts):
    """Iterate from a `State` to the end of a run."""
    from rl.experiment.console import Progress
    from rl.experiment.standing import IDLE, idle
    from rl.sampling.worker_pool import WorkerError

    config, finished = parts.config, False
    progress = Progress(config.num_batches, state.iteration, config.quiet)
    try:
        introduce(parts, folders, state, progress)
        with parts.sampler() as sampler:
            sampler.restarts = state.counters.worker_restarts
            for iteration in range(state.iteration, config.num_batches):
                outcome = iterate(parts, learner, sampler, state.params, iteration)
                counters = count(state.counters, outcome.report, sampler.restarts)
                stands_still = state.counters.longest_idle < IDLE <= counters.longest_idle
                with interrupts.shield():
                    state = write(parts, learner, folders, logger, state, outcome, counters)
                tell(progress, iteration, outcome)
                if counters.rejected_in_a_row >= MAX_REJECTED_IN_A_ROW:
                    raise RunError(
                        f"{MAX_REJECTED_IN_A_ROW} outer steps in a row met losses, gradients or curvature products "
                        "that are not finite; a smaller --fast-lr or --max-kl may help, and the flight records in "
                        f"{folders.logs} tell more"
                    )
                if stands_still:
                    progress.note(f"warning: {idle(IDLE)}")
        finished = True
        logger.close()
        progress.finish(folders, config.num_batches - 1)
    except (WorkerError, UserError) as error:
        raise RunError(str(error)) from None
    finally:
        progress.close()
        if not finished:
            # What could not be written is told of already.
            with contextlib.suppress(OSError):
                logger.close()
            if not folders.missing():
                complain(f"resume with: {resume_command(config, folders)}")


def introduce(parts, folders, state, progress):
    """The first words of a run."""
    config = parts.config
    progress.note(f"{config.method} on {config.env_name}: logs in {folders.logs}, policies in {folders.saves}")
    if state.iteration:
        progress.note(f"resumed at iteration {state.iteration}")
    if config.match_params:
        from rl.policies import match_params

        progress.note(match_params.report(parts.policy.architecture, config.hidden_size))
    if config.neuromodulation and config.nm_gate == "hard":
        progress.note("hard gates: their derivative is zero, so the modulators keep the weights they were drawn with")


class Outcome(NamedTuple):
    """One iteration: `Phases`, the outer step's `StepReport`, the new θ, seconds by name, and the evaluation if due:
    its tasks, `Phases`, seconds, and summary of the gates.
    """

    phases: Any
    report: Any
    params: dict
    times: dict
    evaluation: tuple | None


def iterate(parts, learner, sampler, params, iteration):
    """Sample, adapt, sample, step; evaluate where that is due."""
    from rl.evaluation.evaluate import evaluate
    from rl.experiment.console import gate_summary

    config, started = parts.config, time.perf_counter()
    tasks = parts.tasks(config.meta_batch_size, "train", iteration, streams.TRAIN)
    phases = sampler.sample(params, tasks, parts.training(), parts.origin(iteration, streams.TRAIN))
    sampled = time.perf_counter()
    params, report = learner.step(params, *phases.episodes)
    times = {"sampling": sampled - started, "learning": time.perf_counter() - sampled}
    evaluation = None
    if iteration % config.test_freq == 0:
        started = time.perf_counter()
        tasks, tested = evaluate(parts, sampler, params, iteration, config.test_batch_size)
        seconds = time.perf_counter() - started
        evaluation = tasks, tested, seconds, gate_summary(parts, params, tested)
    return Outcome(phases, report, params, times, evaluation)


def write(parts, learner, folders, logger, state, outcome, counters):
    """Log an iteration and save what it reached, the new `State`."""
    config, iteration = parts.config, state.iteration
    folders.check()
    if outcome.report.rejected_nonfinite and counters.flight_records <= MAX_FLIGHT_RECORDS:
        record = folders.logs / f"flight-{iteration}.npz"
        origin = parts.origin(iteration, streams.TRAIN)
        save_flight_record(record, parts.policy, learner.options, state.params, outcome.phases.episodes, origin)
        print(f"the outer step met numbers that are not finite; it is recorded in {record}", file=sys.stderr)
    logger.training(iteration, outcome.phases, outcome.report, outcome.times, counters)
    if outcome.evaluation:
        tasks, tested, seconds, gates = outcome.evaluation
        logger.evaluation(iteration, tasks, tested, seconds)
        for tag, value in gates.items():
            logger.scalar(tag, value, iteration)
    if iteration % config.save_freq == 0 or iteration == config.num_batches - 1:
        save_policy(folders.policy(iteration), outcome.params)
    reached = State(iteration + 1, outcome.params, counters, logger.positions(), state.options)
    save_state(folders.saves, reached)
    return reached


def tell(progress, iteration, outcome):
    """Tell people of an iteration."""
    episodes, report = outcome.phases.episodes, outcome.report
    returns = tuple(phase.returns.mean() for phase in episodes)
    steps = sum(phase.steps for phase in episodes)
    kl = report.kl if report.accepted else None
    progress.iteration(iteration, returns, kl, steps, outcome.times, success_rates(episodes))
    if outcome.evaluation:
        tested = outcome.evaluation[1].episodes
        line = "  evaluation after 0, 1, 2, … updates: " + ", ".join(f"{phase.returns.mean():.3f}" for phase in tested)
        rates = success_rates(tested)
        if rates:
            line += "; success rate (any step): " + ", ".join(f"{rate:.1%}" for rate in rates)
        progress.note(line)


def success_rates(episodes):
    """The success rate (any step) of each phase's `Episodes`; None where the environment does not tell."""
    from rl.evaluation.evaluate import successes

    told = [successes(phase) for phase in episodes]
    return tuple(found["any"].mean() for found in told) if told[0] else None


def begin(config, parts, folders, resumed):
    """Begin a run in its new folders, or find where it was left: (`State`, `Logger`).

    All that a run writes is written here once, so that a place that cannot be written to is noticed before training is.
    """
    from rl.experiment import console
    from rl.experiment.logger import Logger

    state = load_state(folders.saves, parts.policy)
    begun = state is not None
    state = state or State(0, parts.initial_params(), Counters(), {})
    state = dataclasses.replace(state, options=deciding(config))
    # The state comes first and the logs last: a run whose config.json lies there can be resumed.
    if not begun:
        save_state(folders.saves, state)
    for folder in (folders.saves, folders.logs):
        if resumed:
            extend_config(folder, config.num_batches)
        else:
            write_config(folder, config, parts.policy, config.env_config_path)
    logger = Logger(folders.logs, state.positions)
    if not state.iteration:
        for summary in (console.layout(config.num_test_steps), *console.hparams(config)):
            logger.summary(summary)
    save_state(folders.saves, dataclasses.replace(state, positions=logger.positions()))
    return state, logger


def count(counters, report, restarts):
    """The `Counters` after an outer step."""
    rejected = report.rejected_nonfinite
    idle = 0 if report.accepted else counters.idle_in_a_row + 1
    return Counters(
        worker_restarts=restarts,
        no_update=counters.no_update + (not report.accepted and not rejected),
        rejected_nonfinite=counters.rejected_nonfinite + rejected,
        rejected_in_a_row=counters.rejected_in_a_row + 1 if rejected else 0,
        flight_records=counters.flight_records + rejected,
        idle_in_a_row=idle,
        longest_idle=max(counters.longest_idle, idle),
    )


def resume_command(config, folders):
    """The command line that goes on with a run."""
    command = ["python", start.path_of("main.py"), "--resume", str(folders.logs)]
    if Path(config.savedir).resolve() != Path(Config().savedir).resolve():
        command += ["--savedir", config.savedir]
    return shlex.join(command)


if __name__ == "__main__":
    sys.exit(main())
