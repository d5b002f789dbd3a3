"""What TensorBoard shows of a run: scalars, of which docs/metrics.md defines every tag, charts and a table of runs."""

import contextlib
import os
import sys
import time

import pandas as pd
from tensorboardX import summary as summaries
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from rl.config import NEUTRAL
from rl.evaluation.evaluate import by_class, mean_over_episodes
from rl.evaluation.runs import EVENTS, PROGRESS
from rl.files import write_text

RETURNS = ("running_returns/before_update", "running_returns/after_update")


class Logger:
    """Writes a run's scalars as TensorBoard events, in the calling thread: a full disk is an error here and now.

    Args:
        folder: the run's log folder.
        positions: as from `positions`: what lies in the folder's event files beyond them is cut off first, so that a
            resumed run logs no step twice, and files that it does not name are set aside. None for a new run.
    """

    def __init__(self, folder, positions=None):
        self.folder = folder
        positions = positions or {}
        sizes = {file.name: file.stat().st_size for file in folder.glob(EVENTS)}
        for name, size in sizes.items():
            if name in positions:
                os.truncate(folder / name, min(positions[name], size))
            else:
                set_aside(folder / name)
        for name, position in positions.items():
            if sizes.get(name, 0) < position:
                print(f"warning: {folder / name}: events of earlier iterations are missing from it", file=sys.stderr)
        # The number keeps files apart that are begun within one second.
        number = len(list(folder.glob(EVENTS)))
        with self._naming():
            self.writer = EventsWriter(str(folder / "events"), f".{number}")
        # Known files, and the new one.
        self.files = sorted(folder.glob(EVENTS))
        # A stopgap, written whole at every `positions`: a sink of its own will append to it.
        self.points = {}
        if positions and (folder / PROGRESS).is_file():
            self.points = pd.read_csv(folder / PROGRESS, index_col="iteration").to_dict("index")

    def describe(self, config):
        """What TensorBoard shows besides curves: its custom charts and its table of runs."""
        for summary in (charts(config.num_test_steps), *hparams(config)):
            self.summary(summary)

    def training(self, iteration, summaries, step, times, counters):
        """One iteration of meta-training.

        Args:
            iteration: its number.
            summaries: `Summary` of the episodes before and of those after the update.
            step: the outer step's `StepReport`.
            times: dict name -> seconds.
            counters: the run's `rl.run.state.Counters`.
        """
        before, after = summaries
        self.scalar("policy/actions_train", before.mean_action, iteration)
        self.scalar("policy/actions_test", after.mean_action, iteration)
        for name, summary in (("before_update", before), ("after_update", after)):
            mean, half_width = mean_over_episodes(summary.returns)
            self.scalar(f"running_returns/{name}", mean, iteration)
            self.scalar(f"running_cfis/{name}", half_width, iteration)
        self.scalar("loss/inner_rl", step.inner_loss, iteration)
        self.scalar("loss/outer_rl", step.surrogate_before, iteration)
        for name in ("kl", "step_size", "backtracks", "cg_residual", "gradient_norm"):
            self.scalar(f"trpo/{name}", getattr(step, name), iteration)
        self.scalar("trpo/improvement", step.surrogate_before - step.surrogate_after, iteration)
        self.scalar("trpo/no_update", counters.no_update, iteration)
        self.scalar("trpo/rejected_nonfinite", counters.rejected_nonfinite, iteration)
        self.scalar("baseline/ridge_retries", step.ridge_retries, iteration)
        self.scalar("sampler/worker_restarts", counters.worker_restarts, iteration)
        if "unstable" in before.told:
            unstable = sum(summary.told["unstable"].sum() for summary in summaries)
            self.scalar("env/unstable_episodes", unstable, iteration)
        for name, seconds in times.items():
            self.scalar(f"time/{name}", seconds, iteration)
        num_steps = before.steps + after.steps
        self.scalar("time/env_steps_per_second", num_steps / max(times["sampling"], 1e-9), iteration)

    def evaluation(self, iteration, evaluated):
        """One evaluation: the mean return, and where there is one the success rate, after each number of updates."""
        for updates, summary in enumerate(evaluated.summaries):
            mean, half_width = mean_over_episodes(summary.returns)
            self.scalar(f"evaluation_rew/avg_rew {updates}", mean, iteration)
            self.scalar(f"evaluation_cfi/avg_rew {updates}", half_width, iteration)
            success = summary.success
            if success is not None:
                for name, values in success.items():
                    self.scalar(f"evaluation_success/{name} {updates}", values.mean(), iteration)
                for name, members in by_class(evaluated.tasks).items():
                    self.scalar(f"evaluation_success/{name} {updates}", success["any"][members].mean(), iteration)
        for tag, value in evaluated.gates.items():
            self.scalar(tag, value, iteration)
        self.scalar("time/evaluation", evaluated.seconds, iteration)

    def scalar(self, tag, value, iteration):
        """One point of one curve."""
        self.points.setdefault(iteration, {})[tag] = float(value)
        # Built by hand: tensorboardX's own helper would replace the spaces of published tags.
        point = summary_pb2.Summary.Value(tag=tag, simple_value=float(value))
        self.summary(summary_pb2.Summary(value=[point]), iteration)

    def summary(self, summary, iteration=0):
        """Any TensorBoard summary, a protocol buffer."""
        with self._naming():
            self.writer.write_event(event_pb2.Event(wall_time=time.time(), step=iteration, summary=summary))

    def positions(self):
        """Write what is pending, and tell where the run's event files end: file name -> bytes.

        Raises:
            FileNotFoundError: one of them is gone; its writer would not notice.
        """
        with self._naming():
            self._write_progress()
            self.writer.flush()
        return {file.name: file.stat().st_size for file in self.files}

    def close(self):
        """Write what is pending."""
        with self._naming():
            self._write_progress()
            self.writer.close()

    def _write_progress(self):
        table = pd.DataFrame.from_dict(self.points, orient="index").rename_axis("iteration").sort_index()
        write_text(self.folder / PROGRESS, table.to_csv(lineterminator="\n"))

    @contextlib.contextmanager
    def _naming(self):
        """An error of writing says where."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from None


def charts(num_test_steps):
    """TensorBoard's custom scalars, a summary: before and after in one chart, all adaptation steps in another."""
    updates = range(num_test_steps + 1)
    return summaries.custom_scalars(
        {
            "returns": {
                "before and after the update": ["Multiline", list(RETURNS)],
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
    """TensorBoard's table of runs, two summaries: the options, and which curves' last points are the run's metrics.

    Written at the start, the table needs no end: it shows the last points logged so far.
    """
    options = {name: value for name, value in vars(config).items() if name not in NEUTRAL} | {"method": config.method}
    tags = [*RETURNS, *(f"evaluation_rew/avg_rew {count}" for count in range(config.num_test_steps + 1))]
    return summaries.hparams(options, dict.fromkeys(tags, 0.0))[:2]


def set_aside(path):
    """Give an event file that the run knows nothing of a name that neither TensorBoard nor `EVENTS` matches."""
    name = path.name.replace("tfevents", "set-aside")
    number = 1
    while (aside := path.with_name(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    os.replace(path, aside)
    print(f"warning: {path}: the run's state does not know this file; it is now {aside.name}", file=sys.stderr)
