"""What a training run prints: how it begins, every iteration and evaluation, and how it ended."""

import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

from rl import start
from rl.config import Config
from rl.evaluation.evaluate import Evaluated, Summary
from rl.files import printable
from rl.policies import Architecture, match_params
from rl.run.folders import Folders
from rl.run.summary import summary as run_summary


class Console:
    """A progress bar on a terminal; one plain line an iteration elsewhere.

    Args:
        iteration: the first one to come.
    """

    def __init__(self, config: Config, iteration: int = 0, stream: Any = None):
        self.config, self.first = config, iteration
        self.stream = stream or sys.stdout
        self.started = time.perf_counter()
        self.bar = None
        if self.stream.isatty() and not config.quiet:
            total = config.num_batches
            self.bar = tqdm(total=total, initial=iteration, file=self.stream, unit="it", dynamic_ncols=True)

    def introduce(self, architecture: Architecture, folders: Folders) -> None:
        """Say what is run, and where its files go."""
        config = self.config
        self.note(f"{config.method} on {config.env_name}: logs in {folders.logs}, policies in {folders.saves}")
        if self.first:
            self.note(f"resumed at iteration {self.first}")
        if config.match_params:
            self.note(match_params.report(architecture, config.hidden_size))
        if config.neuromodulation and config.nm_gate == "hard":
            self.note("hard gates: their derivative is zero, so the modulators keep the weights they were drawn with")

    def iteration(
        self,
        number: int,
        summaries: Sequence[Summary],
        step: Mapping[str, float],
        times: Mapping[str, float],
        evaluated: Evaluated | None = None,
    ) -> None:
        """Show one iteration.

        Args:
            number: from 0.
            summaries: of the episodes after 0, 1, 2, … updates.
            step: the outer step's metrics.
            times: {"sampling", "learning"} -> seconds.
        """
        before, after = (summary.returns.mean() for summary in (summaries[0], summaries[-1]))
        success = success_rates(summaries)
        kl, length = (step[f"{self.config.outer_step}/{name}"] for name in ("kl", "step_size"))
        outcome = f"kl {kl:.4f}" if kl >= 5e-5 else f"kl {kl:.1e}"
        if not length:
            outcome = "no step accepted"
        speed = sum(summary.steps for summary in summaries) / max(times["sampling"], 1e-9)
        if self.bar is not None:
            rates = f"success {success[0]:.0%} -> {success[-1]:.0%}, " if success else ""
            self.bar.set_postfix_str(f"return {before:.3g} -> {after:.3g}, {rates}{outcome}, {speed:,.0f} steps/s")
            self.bar.update()
        else:
            rates = f"success rate {success[0]:.1%} -> {success[-1]:.1%}, " if success else ""
            done = number + 1 - self.first
            left = (time.perf_counter() - self.started) / done * (self.config.num_batches - number - 1)
            self.note(
                f"iteration {number}: return {before:.3f} -> {after:.3f}, {rates}{outcome}, "
                f"sampling {times['sampling']:.2f} s, learning {times['learning']:.2f} s, {speed:.0f} steps/s, "
                f"{duration(left)} left"
            )
        if evaluated:
            self.note(evaluation_line(evaluated.summaries))

    def finish(self, folders: Folders) -> None:
        """Say where everything lies, how to evaluate the last policy, and what the logs say of the run."""
        policy = folders.policy(self.config.num_batches - 1)
        evaluate = shlex.join([*start.command("test"), str(folders.logs / "config.json"), str(policy)])
        for line in (f"logs: {folders.logs}", f"policies: {folders.saves}", f"evaluate with: {evaluate}"):
            self.note(line)
        for line in run_summary(folders.logs):
            self.note(line)

    def note(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.bar is None:
            print(printable(text), file=self.stream, flush=True)
        else:
            self.bar.write(text, file=self.stream)

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()


def evaluation_line(summaries: Sequence[Summary]) -> str:
    """The mean returns, and success rates if any, of an evaluation after 0, 1, 2, … updates."""
    line = "  evaluation after 0, 1, 2, … updates: " + ", ".join(f"{each.returns.mean():.3f}" for each in summaries)
    rates = success_rates(summaries)
    return line + ("; success rate (any step): " + ", ".join(f"{rate:.1%}" for rate in rates) if rates else "")


def success_rates(summaries: Sequence[Summary]) -> tuple[float, ...] | None:
    """The success rate (any step) after each number of updates; None where the environment knows no success."""
    found = [summary.success for summary in summaries if summary.success]
    return tuple(success["any"].mean() for success in found) if found else None


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
