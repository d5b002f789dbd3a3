"""What a run tells while it goes on, and at its end."""

import math
import shlex
import sys
import time

import numpy as np
import torch
from tensorboardX import summary as summaries

from rl import start
from rl.config import NEUTRAL
from rl.evaluation import recordings
from rl.evaluation.evaluate import replay
from rl.evaluation.gates import summarize
from rl.experiment import standing

_RUNNING = ("before_update", "after_update")


class Progress:
    """A progress bar on a terminal; one plain line an iteration elsewhere.

    Args:
        total: iterations of the run.
        start: those done before, by the run that is resumed.
        quiet: plain lines on a terminal, too.
        stream: where to.
    """

    def __init__(self, total, start=0, quiet=False, stream=None):
        self.total, self.start = total, start
        self.stream = stream or sys.stdout
        self.started = time.perf_counter()
        self.bar = None
        if self.stream.isatty() and not quiet:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=start, file=self.stream, unit="it", dynamic_ncols=True)

    def iteration(self, number, returns, kl, steps, times, success=None):
        """Tell of one iteration.

        Args:
            number: its number, from 0.
            returns: means before and after the update.
            kl: of the outer step, in nat; None where no step was accepted.
            steps: environment steps sampled.
            times: {"sampling", "learning"} -> seconds.
            success: success rates (any step) before and after the update, where the environment tells them.
        """
        speed = steps / max(times["sampling"], 1e-9)
        moved = "no step accepted" if kl is None else f"kl {kl:.4f}" if kl >= 5e-5 else f"kl {kl:.1e}"
        before, after = returns
        if self.bar is not None:
            rates = "success {:.0%} -> {:.0%}, ".format(*success) if success else ""
            self.bar.set_postfix_str(f"return {before:.3g} -> {after:.3g}, {rates}{moved}, {speed:,.0f} steps/s")
            self.bar.update()
            return
        rates = "success rate {:.1%} -> {:.1%}, ".format(*success) if success else ""
        done = number + 1 - self.start
        left = (time.perf_counter() - self.started) / done * (self.total - number - 1)
        self.note(
            f"iteration {number}: return {before:.3f} -> {after:.3f}, {rates}{moved}, "
            f"sampling {times['sampling']:.2f} s, learning {times['learning']:.2f} s, {speed:.0f} steps/s, "
            f"{duration(left)} left"
        )

    def note(self, text):
        """Print a line, above the bar where there is one."""
        if self.bar is None:
            print(text, file=self.stream, flush=True)
        else:
            self.bar.write(text, file=self.stream)

    def close(self):
        """End the bar."""
        if self.bar is not None:
            self.bar.close()

    def finish(self, folders, iteration):
        """The last words: where everything lies, how to evaluate it, and where the run stands.

        Args:
            folders: `rl.experiment.folders.Folders`.
            iteration: the last one.
        """
        self.close()
        policy = folders.policy(iteration)
        evaluate = shlex.join(["python", start.path_of("test.py"), str(folders.logs / "config.json"), str(policy)])
        for line in (f"logs: {folders.logs}", f"policies: {folders.saves}", f"evaluate with: {evaluate}"):
            self.note(line)
        for line in standing.last_words(folders.logs):
            self.note(line)


def duration(seconds):
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def layout(num_test_steps):
    """TensorBoard's custom scalars: before and after in one chart, all adaptation steps in another; a summary."""
    updates = range(num_test_steps + 1)
    return summaries.custom_scalars(
        {
            "returns": {
                "before and after the update": ["Multiline", [f"running_returns/{name}" for name in _RUNNING]],
                "test tasks, after each number of updates": [
                    "Multiline", [f"evaluation_rew/avg_rew {count}" for count in updates]
                ],
                "success rate (any step) of the test tasks": [
                    "Multiline", [f"evaluation_success/any {count}" for count in updates]
                ],
            }
        }
    )  # fmt: skip


def hparams(config):
    """TensorBoard's table of runs: the options, and which curves' last points are the run's metrics; summaries.

    Written at the start, the table needs no end: it shows the last points logged so far.
    """
    options = {name: value for name, value in vars(config).items() if name not in NEUTRAL} | {"method": config.method}
    tags = [f"running_returns/{name}" for name in _RUNNING]
    tags += [f"evaluation_rew/avg_rew {count}" for count in range(config.num_test_steps + 1)]
    return summaries.hparams(options, dict.fromkeys(tags, 0.0))[:2]


def gate_summary(parts, params, phases):
    """What the gates do on the first group of tasks of an evaluation; docs/figures.md defines the numbers.

    Args:
        parts: `rl.experiment.build.Parts`.
        params: θ.
        phases: `Phases` of an evaluation with θ.

    Returns:
        `gates/<layer>/<name>` -> value; nothing for a plain policy
    """
    if not parts.policy.architecture.nm_gate:
        return {}
    count = min(parts.config.tasks_per_group, phases.episodes[0].mask.shape[0])
    group = phases.tasks(0, count)
    probe = torch.from_numpy(recordings.draw_probe(parts.config.seed, group, list(range(count))))
    records = [
        recordings.recorded(parts.policy, adapted, probe.expand(count, -1, -1))
        for _, adapted in replay(parts.policy, params, group, parts.evaluation())
    ]
    found = {}
    for layer in parts.policy.layer_names:
        for name, value in summarize(np.stack([record[f"{layer}.gates"] for record in records], axis=1)).items():
            if value is not None:
                # After the last update; of flips from step to step, those of the first update.
                found[f"gates/{layer}/{name}"] = float(np.ravel(value)[0 if name == "flips_between_steps" else -1])
    return found
