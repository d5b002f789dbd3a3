"""A training run in its folders: how it begins or goes on, what it writes of each iteration, how it ends."""

import contextlib
import dataclasses
import sys

from rl import streams
from rl.run import logger, resume
from rl.run.folders import deciding, extend_config, save_policy, write_config
from rl.run.interrupts import complain
from rl.run.state import Counters, State, save_flight_record, save_state
from rl.run.summary import MANY_UNACCEPTED, unaccepted
from rl.run.team import RunError, told

MAX_REJECTED_IN_A_ROW = 10
MAX_FLIGHT_RECORDS = 3


class TrainingRun:
    """A run's state, and all that is written of it.

    Made, it has written everything once that a run writes, so that a place that cannot be written to is noticed before
    training is. Leaving the `with` block closes the logs; where an error leaves it, the command that resumes the run is
    told, and the user's or a worker's error, or too little memory, becomes a `RunError`.

    Args:
        experiment: `rl.run.build.Setup`.
        folders: the run's `Folders`, claimed.
        resumed: whether a run begun earlier lies in them.

    Attributes:
        state: the `State` reached.
    """

    def __init__(self, experiment, folders, resumed):
        self.experiment, self.folders = experiment, folders
        config, policy = experiment.config, experiment.policy
        state = resume.load(config, folders, policy) if resumed else None
        # The state comes first and the logs last: a run whose config.json lies there can be resumed.
        if state is None:
            state = State(0, experiment.initial_params(), Counters(), {}, deciding(config))
            save_state(folders.saves, state)
        if resumed:
            extend_config(folders, config, state.iteration)
        else:
            for folder in (folders.saves, folders.logs):
                write_config(folder, config, policy, config.env_config_path)
        self.logger = logger.Logger(folders.logs, state.positions)
        if not state.iteration:
            self.logger.describe(config)
        self.state = dataclasses.replace(state, positions=self.logger.positions(), options=deciding(config))
        self._stands_still = False
        save_state(folders.saves, self.state)

    @property
    def records_flights(self):
        """Whether outer steps that met numbers that are not finite are still recorded."""
        return self.state.counters.flight_records < MAX_FLIGHT_RECORDS

    def log(self, iteration, summaries, step, times, restarts, evaluation=None, refused=None):
        """Log an iteration; an outer step that met numbers that are not finite is recorded for study.

        Args:
            iteration: its number.
            summaries: `Summary` of the episodes before and of those after the update.
            step: the outer step's `StepReport`.
            times: {"sampling", "learning"} -> seconds.
            restarts: of workers, in the whole run.
            evaluation: the `Evaluated` of an iteration that had one.
            refused: `Rollouts` that the outer step met numbers on that are not finite.
        """
        self.folders.check()
        counters = self.state.counters.after(step, restarts)
        self._stands_still = self.state.counters.longest_idle < MANY_UNACCEPTED <= counters.longest_idle
        if refused:
            self._record_flight(iteration, refused.episodes)
        self.logger.training(iteration, summaries, step, times, counters)
        if evaluation:
            self.logger.evaluation(iteration, evaluation)
        self.state = dataclasses.replace(self.state, counters=counters)

    def save(self, iteration, params):
        """Save what an iteration reached: the policy where that is due, and the state to go on from.

        Args:
            iteration: its number.
            params: θ after it.
        """
        config = self.experiment.config
        if iteration % config.save_freq == 0 or iteration == config.num_batches - 1:
            save_policy(self.folders.policy(iteration), params)
        reached = dataclasses.replace(
            self.state, iteration=iteration + 1, params=params, positions=self.logger.positions()
        )
        save_state(self.folders.saves, reached)
        self.state = reached

    def check(self, console):
        """Warn, once, where no outer step has been accepted for long.

        Raises:
            RunError: too many in a row met numbers that are not finite.
        """
        if self.state.counters.rejected_in_a_row >= MAX_REJECTED_IN_A_ROW:
            raise RunError(
                f"{MAX_REJECTED_IN_A_ROW} outer steps in a row met losses, gradients or curvature products that are "
                f"not finite; a smaller --fast-lr or --max-kl may help, and the flight records in {self.folders.logs} "
                "tell more"
            )
        if self._stands_still:
            console.note(f"warning: {unaccepted(MANY_UNACCEPTED)}")

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if error is None:
            self.logger.close()
            return
        # What could not be written is told already.
        with contextlib.suppress(OSError):
            self.logger.close()
        if not self.folders.missing():
            complain(f"resume with: {resume.command(self.experiment.config, self.folders, self.experiment.ranks)}")
        reason = told(error)
        if reason:
            raise reason from None

    def _record_flight(self, iteration, episodes):
        path = self.folders.logs / f"flight-{iteration}.npz"
        experiment = self.experiment
        origin = experiment.origin(iteration, streams.TRAIN)
        save_flight_record(path, experiment.policy, experiment.learner_options, self.state.params, episodes, origin)
        print(f"the outer step met numbers that are not finite; it is recorded in {path}", file=sys.stderr)
