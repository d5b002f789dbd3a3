"""A training run in its folders: how it begins or is resumed, what it writes of each iteration, how it ends."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from rl import streams
from rl.evaluation.evaluate import Evaluated, Summary
from rl.run import checkpoint, config_file, metrics, resume
from rl.run.checkpoint import Counters, State
from rl.run.console import Console
from rl.run.folders import Folders
from rl.run.interrupts import Interrupts, RunError, as_run_error
from rl.run.setup import Setup
from rl.run.shares import Shares
from rl.run.summary import MANY_UNACCEPTED, unaccepted
from rl.sampling.rollout import Rollouts
from rl.start import complain

MAX_REJECTED_IN_A_ROW = 10
MAX_FLIGHT_RECORDS = 3


class TrainingRun:
    """A run's state, and all that rank 0 writes and prints of it; other ranks keep count and write nothing.

    Entered, it has written everything once that a run writes, so that a folder that cannot be written to is noticed
    before training is. Left, it closes the logs; where an error leaves it, it prints the command that resumes the run.

    Args:
        folders: of the run to resume; None for a new one.

    Attributes:
        state: the `State` reached.
    """

    def __init__(self, setup: Setup, folders: Folders | None, interrupts: Interrupts):
        self.setup, self.interrupts, self.leads = setup, interrupts, setup.ranks.leads
        self.resumed = folders is not None
        if folders is not None:
            self.folders = folders
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "TrainingRun":
        config, ranks = self.setup.config, self.setup.ranks
        with self._stack as stack:
            arrays: dict[str, np.ndarray] = {}
            if self.leads:
                if not self.resumed:
                    self.folders = Folders.make(config)
                stack.enter_context(self.folders.claimed())
                with self.interrupts.shield():
                    self.state = self._begin()
                arrays = _arrays(self.state)
            if ranks.size > 1:
                found = _state(ranks.broadcast(arrays))
                # The one that leads also knows the options that a state is saved with.
                self.state = self.state if self.leads else found
            self.console = stack.enter_context(Console(config, self.state.iteration))
            if self.leads:
                self.console.introduce(self.setup.policy.architecture, self.folders)
            self._stack = stack.pop_all()
        return self

    def record(
        self,
        iteration: int,
        params: dict[str, Tensor],
        outer_state: dict[str, Tensor],
        step: metrics.Metrics,
        rollouts: Rollouts,
        times: Mapping[str, float],
        evaluated: Evaluated | None,
        shares: Shares,
    ) -> None:
        """Log an iteration and save what it reached.

        Args:
            params, outer_state: θ and the outer step's state after it.
            step: the outer step's metrics.
            rollouts: of this rank.
            times: {"sampling", "learning"} -> seconds.
            evaluated: of an iteration that had an evaluation.

        Raises:
            RunError: too many outer steps in a row met numbers that are not finite.
        """
        outer_step = self.setup.config.outer_step
        rejected = math.isnan(step[f"{outer_step}/gradient_norm"])
        counters = self.state.counters.after(step[f"{outer_step}/step_size"] > 0, rejected)
        record_flight = rejected and self.state.counters.flight_records < MAX_FLIGHT_RECORDS
        refused = shares.rollouts(rollouts) if record_flight else None
        summaries, restarts = shares.summaries(rollouts), shares.restarts()
        state = State(iteration + 1, params, counters, self.state.options, outer_state)
        if self.leads:
            counters = dataclasses.replace(counters, worker_restarts=self.restarts_before + restarts)
            state = dataclasses.replace(state, counters=counters)
            with self.interrupts.shield():
                self.folders.check()
                if refused:
                    self._record_flight(iteration, refused)
                self._write(iteration, state, summaries, step, times, evaluated)
        self.state = state
        self._check()

    def _begin(self) -> State:
        """Load the state of a run that is resumed, or write the first one and config.json."""
        config, policy, folders = self.setup.config, self.setup.policy, self.folders
        options = config_file.result_options(config)
        if self.resumed:
            state = dataclasses.replace(resume.load(self.setup, folders), options=options)
            self.sinks = metrics.sinks(folders.logs, config, state.iteration)
            config_file.extend(folders, config, state.iteration)
        else:
            # The state comes first and the logs last: a run whose config.json lies there can be resumed.
            state = State(0, self.setup.initial_params(), Counters(), options)
            checkpoint.save_state(folders.saves, state)
            for folder in (folders.saves, folders.logs):
                config_file.write(folder, config, policy)
            self.sinks = metrics.sinks(folders.logs, config)
        self.restarts_before = state.counters.worker_restarts
        checkpoint.save_state(folders.saves, state)
        return state

    def _write(
        self,
        iteration: int,
        state: State,
        summaries: Sequence[Summary],
        step: metrics.Metrics,
        times: Mapping[str, float],
        evaluated: Evaluated | None,
    ) -> None:
        """The metrics, the policy where that is due, then the state to resume from."""
        config = self.setup.config
        found = metrics.training(summaries, config.outer_step, step, times, state.counters)
        if evaluated:
            found |= metrics.evaluation(evaluated)
        for sink in self.sinks:
            sink.write(iteration, found)
        if iteration % config.save_freq == 0 or iteration == config.num_batches - 1:
            checkpoint.save_policy(self.folders.policy(iteration), state.params)
        checkpoint.save_state(self.folders.saves, state)
        self.console.iteration(iteration, summaries, step, times, evaluated)

    def _check(self) -> None:
        """Warn where no outer step was accepted for long.

        Raises:
            RunError: too many in a row met numbers that are not finite.
        """
        counters = self.state.counters
        if counters.rejected_in_a_row >= MAX_REJECTED_IN_A_ROW:
            raise RunError(
                f"{MAX_REJECTED_IN_A_ROW} outer steps in a row met losses, gradients or curvature products that are "
                "not finite; a smaller --fast-lr or outer step (TRPO: --max-kl, PPO: --learning-rate) may help, and "
                "the flight records in the log folder show where they arose"
            )
        if counters.idle_in_a_row == MANY_UNACCEPTED:
            self.console.note(f"warning: {unaccepted(MANY_UNACCEPTED)}")

    def _record_flight(self, iteration: int, rollouts: Rollouts) -> None:
        setup, path = self.setup, self.folders.logs / f"flight-{iteration}.npz"
        options = {
            "objective": setup.options._asdict(), "outer_step": setup.config.outer_step,
            "outer": setup.outer_options._asdict(),
        }  # fmt: skip
        stream = setup.stream(iteration, streams.TRAIN)
        checkpoint.save_flight_record(path, setup.policy, options, self.state, rollouts.episodes, stream)
        print(f"the outer step met numbers that are not finite; it is recorded in {path}", file=sys.stderr)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            if not self.leads:
                pass
            elif error is None:
                self._close()
                self.console.finish(self.folders)
            else:
                # What could not be written is reported already.
                with contextlib.suppress(OSError):
                    self._close()
                if not self.folders.missing():
                    complain(f"resume with: {resume.command(self.setup.config, self.folders, self.setup.ranks)}")
        if reason := as_run_error(error):
            raise reason from None

    def _close(self) -> None:
        for sink in self.sinks:
            sink.close()


def _arrays(state: State) -> dict[str, np.ndarray]:
    """A state as arrays, for the other ranks."""
    counters = {f"counter {name}": np.array(value) for name, value in vars(state.counters).items()}
    params = {f"param {name}": value.numpy() for name, value in state.params.items()}
    outer = {f"outer {name}": value.cpu().numpy() for name, value in state.outer_state.items()}
    return {"iteration": np.array(state.iteration)} | counters | params | outer


def _state(arrays: Mapping[str, np.ndarray]) -> State:
    def named(prefix: str, make: Callable) -> dict:
        return {name.removeprefix(prefix): make(value) for name, value in arrays.items() if name.startswith(prefix)}

    counters = Counters(**named("counter ", int))
    outer_state = named("outer ", torch.tensor)
    return State(int(arrays["iteration"]), named("param ", torch.tensor), counters, outer_state=outer_state)
