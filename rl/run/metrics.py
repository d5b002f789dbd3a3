"""A run's metrics, a flat dict of floats an iteration under the published tags (docs/metrics.md defines each), and the
sinks that they go to: `progress.csv`, TensorBoard, Weights & Biases.

To add a sink, write a class with the two methods of `Sink` and name it in `sinks`.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from tensorboardX import summary as summaries
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary as Protobuf

from rl.config import NEUTRAL, Config
from rl.errors import UserError
from rl.evaluation.evaluate import Evaluated, Summary, by_class, mean_over_episodes
from rl.evaluation.runs import PROGRESS
from rl.files import no_link, printable, read_text, write_text
from rl.run.checkpoint import Counters
from rl.run.config_file import first_written

RETURNS = ("running_returns/before_update", "running_returns/after_update")
SUCCESS = ("running_success/before_update", "running_success/after_update")

Metrics = dict[str, float]


def training(
    summaries: Sequence[Summary], outer_step: str, step: Metrics, times: Mapping[str, float], counters: Counters
) -> Metrics:
    """The metrics of an iteration of meta-training, the most important ones first.

    Args:
        summaries: of the episodes after 0, 1, 2, … updates.
        outer_step: its name, with which its tags begin.
        step: its metrics.
        times: {"sampling", "learning"} -> seconds.
        counters: the run's, with this iteration.
    """
    before, after = summaries[0], summaries[-1]
    found: Metrics = {}
    for name, summary in (("before_update", before), ("after_update", after)):
        found[f"running_returns/{name}"], found[f"running_cfis/{name}"] = mean_over_episodes(summary.returns)
    for tag, summary in zip(SUCCESS, (before, after), strict=True):
        if success := summary.success:
            found[tag] = float(success["any"].mean())
    found |= step | {
        "policy/actions_train": before.mean_action,
        "policy/actions_test": after.mean_action,
        f"{outer_step}/no_update": counters.no_update,
        f"{outer_step}/rejected_nonfinite": counters.rejected_nonfinite,
        "sampler/worker_restarts": counters.worker_restarts,
    }
    if "unstable" in before.extras:
        found["env/unstable_episodes"] = sum(summary.extras["unstable"].sum() for summary in summaries)
    found |= {f"time/{name}": seconds for name, seconds in times.items()}
    found["time/env_steps_per_second"] = sum(summary.steps for summary in summaries) / max(times["sampling"], 1e-9)
    return found


def evaluation(evaluated: Evaluated) -> Metrics:
    """The mean return, and where there is one the success rate, after each number of updates; what the gates do."""
    found = {}
    for updates, summary in enumerate(evaluated.summaries):
        mean, half_width = mean_over_episodes(summary.returns)
        found[f"evaluation_rew/avg_rew {updates}"], found[f"evaluation_cfi/avg_rew {updates}"] = mean, half_width
        if success := summary.success:
            for name, values in success.items():
                found[f"evaluation_success/{name} {updates}"] = values.mean()
            for name, members in by_class(evaluated.tasks).items():
                found[f"evaluation_success/{name} {updates}"] = success["any"][members].mean()
    return found | evaluated.gates | {"time/evaluation": evaluated.seconds}


class SinkError(UserError):
    """A sink cannot be opened."""

    status = 1


def check(config: Config) -> None:
    """Find out, before anything is written, whether the sinks that a run asks for are installed.

    Raises:
        UserError: one is not.
    """
    if config.wandb:
        try:
            from wandb import init  # noqa: F401  (a mere folder `wandb` can be imported, too)
        except ImportError:
            raise UserError("--wandb: the package wandb is not installed; expected pip install wandb") from None


@runtime_checkable
class Sink(Protocol):
    """Where metrics go."""

    def write(self, iteration: int, metrics: Metrics) -> None:
        """Take the metrics of an iteration; what is returned from has reached the disk, or was handed on."""
        ...

    def close(self) -> None:
        """Write what is pending."""
        ...


def sinks(folder: Path, config: Config, iteration: int = 0) -> list[Sink]:
    """Those of a training run.

    Args:
        folder: its log folder.
        iteration: the first one to come; what earlier attempts wrote of it and of later ones is dropped.
    """
    found: list[Sink] = []
    with contextlib.ExitStack() as opened:  # where one cannot be opened, the others are closed

        def add(sink: Sink) -> None:
            opened.callback(sink.close)
            found.append(sink)

        add(Progress(folder, iteration))
        add(board := TensorBoard(folder, iteration))
        if not iteration:
            board.describe(config)
        if config.wandb:
            add(WeightsAndBiases(folder, config))
        opened.pop_all()
    return found


class Progress:
    """progress.csv: a row an iteration, a column a metric; `pandas.read_csv` reads it."""

    def __init__(self, folder: Path, iteration: int = 0):
        self.path = folder / PROGRESS
        self.columns: list[str] = ["iteration"]
        rows = []
        if self.path.is_file():
            table = list(csv.reader(read_text(self.path, "a run's progress").splitlines()))
            self.columns = table[0] if table else self.columns
            # A line that a crash cut short is of an iteration still to come.
            rows = [
                row
                for row in table[1:]
                if len(row) == len(self.columns) and row[0].isdecimal() and int(row[0]) < iteration
            ]
        if len(rows) < iteration:
            raise UserError(f"{self.path}: expected the {iteration} iterations of the run so far, found {len(rows)}")
        write_text(self.path, _lines([self.columns, *rows]))

    def write(self, iteration: int, metrics: Metrics) -> None:
        """As `Sink.write`."""
        row = {"iteration": iteration} | {name: float(value) for name, value in metrics.items()}
        if new := [name for name in row if name not in self.columns]:
            self._widen(new)
        # One that was deleted is not begun anew.
        with naming(self.path), open(self.path, "r+", encoding="utf-8", newline="", opener=no_link) as file:
            file.seek(0, os.SEEK_END)
            file.write(_lines([[row.get(name, "") for name in self.columns]]))
            file.flush()
            # Before the state says that the iteration is done: a power cut leaves no gap.
            os.fsync(file.fileno())

    def close(self) -> None:
        """As `Sink.close`; nothing is pending."""

    def _widen(self, names: list[str]) -> None:
        """Add columns; earlier rows are empty there."""
        rows = list(csv.reader(self.path.read_text(encoding="utf-8").splitlines()))[1:]
        self.columns += names
        write_text(self.path, _lines([self.columns, *([*row, *[""] * len(names)] for row in rows)]))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of writing says where."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _lines(rows: Sequence[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class TensorBoard:
    """Event files, written in the calling thread: a full disk is an error here and now."""

    def __init__(self, folder: Path, purge_step: int | None = None):
        self.folder = folder
        number = len(list(folder.glob("events.out.tfevents.*")))  # keeps files apart that are begun within one second
        with naming(self.folder):
            # An absolute path, as "gs:" and "s3:" would name a cloud; a name that no link can have been laid under.
            self.writer = EventsWriter(str(folder.resolve() / "events"), f".{number}.{secrets.token_hex(8)}")
        if purge_step is not None and number:
            # What TensorBoard read of this step and later ones is of an attempt that crashed.
            self._event(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def describe(self, config: Config) -> None:
        """What TensorBoard shows besides curves: its custom charts and its table of runs."""
        for summary in (charts(config.num_test_steps), *hparams(config)):
            self._event(Event(summary=summary))

    def show(self, tag: str, path: Path) -> None:
        """A picture, or a film as GIF, which TensorBoard plays."""
        with Image.open(path) as image:
            width, height = image.size
        shown = Protobuf.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._event(Event(summary=Protobuf(value=[Protobuf.Value(tag=tag, image=shown)])))

    def write(self, iteration: int, metrics: Metrics) -> None:
        """As `Sink.write`."""
        # Built by hand: tensorboardX's own helper would replace the spaces of published tags.
        points = [Protobuf.Value(tag=tag, simple_value=float(value)) for tag, value in metrics.items()]
        self._event(Event(step=iteration, summary=Protobuf(value=points)))
        with naming(self.folder):
            self.writer.flush()

    def close(self) -> None:
        """As `Sink.close`."""
        with naming(self.folder):
            self.writer.close()

    def _event(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.folder):
            self.writer.write_event(event)


class WeightsAndBiases:
    """A run of Weights & Biases (`--wandb PROJECT`); its own settings are variables such as WANDB_MODE."""

    def __init__(self, folder: Path, config: Config):
        import wandb

        try:
            # A run that is resumed keeps its name, and with that its curves.
            self.run = wandb.init(
                project=config.wandb, id=identity(folder), name=folder.name, dir=folder, resume="allow",
                config=readable(config),
            )  # fmt: skip
        except wandb.Error as error:  # nobody is logged in, no such project, no network
            raise SinkError(f"--wandb {config.wandb}: {' '.join(str(error).split())}") from None

    def write(self, iteration: int, metrics: Metrics) -> None:
        """As `Sink.write`."""
        self.run.log(metrics, step=iteration)

    def close(self) -> None:
        """As `Sink.close`."""
        self.run.finish()


def identity(folder: Path) -> str:
    """A run's id at Weights & Biases, the same when it is resumed: folders of one name can have begun within one second
    in several places, but not with the same config.json.
    """
    content = json.dumps(first_written(folder / "config.json"), sort_keys=True)
    return f"{folder.name.replace('=', '-')}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def charts(num_test_steps: int) -> Protobuf:
    """TensorBoard's custom scalars, the most important first, where its other page has the order of the alphabet:
    before and after in one chart, all adaptation steps in another.
    """
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
                "success rate (any step), before and after the update": ["Multiline", list(SUCCESS)],
            },
            "outer step": {
                name: ["Multiline", [rf"^\w+/{name}$"]] for name in ("kl", "improvement", "step_size", "gradient_norm")
            },
            "time": {"seconds": ["Multiline", ["time/sampling", "time/learning", "time/evaluation"]]},
        }
    )  # fmt: skip


def readable(config: Config) -> dict[str, Any]:
    """The options, as protocols take them that know Unicode alone."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in vars(config).items()}


def hparams(config: Config) -> Sequence[Protobuf]:
    """TensorBoard's table of runs, two summaries: the options, and which curves' last points are the run's metrics.

    Written at the start, the table needs no end: it shows the last points logged so far.
    """
    options = {name: value for name, value in readable(config).items() if name not in NEUTRAL}
    options["method"] = config.method
    updates = range(config.num_test_steps + 1)
    tags = [*reversed(RETURNS), *(f"evaluation_rew/avg_rew {count}" for count in updates), *reversed(SUCCESS),
            *(f"evaluation_success/any {count}" for count in updates)]  # fmt: skip
    return summaries.hparams(options, dict.fromkeys(tags, 0.0))[:2]
