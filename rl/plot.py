"""See what was learnt: pictures of training runs and evaluations.

python plot.py curves logs/<env>/<method>/<run> ...
python plot.py adaptation|table logs/<env>/<method>_test/<run> ...
python plot.py trajectories|representation|gates logs/<env>/<method>_test/<run>
"""

import os
import sys

if __name__ == "__main__":
    if not __package__:  # run as `python plot.py`: the package stands one folder up
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from rl import start

    sys.exit(start.run("plot"))

import argparse
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl.config import Parser, whole_number
from rl.errors import UserError
from rl.run.interrupts import exit_status


def main(command_line: Sequence[str] | None = None) -> int:
    """Parse, draw, and turn errors into one line and an exit status."""
    return exit_status("plot.py", lambda _: draw(parse(command_line)))


def draw(options: argparse.Namespace) -> int:
    """Draw what the parsed options say and print what was drawn; returns the exit status."""
    from rl.plots import style  # matplotlib takes a second, which --help need not

    # A command is the function of its name, in the module of its name, and its options are that function's arguments.
    arguments = vars(options).copy()
    command, output = arguments.pop("command"), arguments.pop("output")
    place = Path(arguments.get("folder", ""), command) if output is None else style.place(output, command)
    given = {name: arguments.pop(name) for name in style.Frame._fields if name in arguments}
    for option, texts in (("--title", [given.get("title") or ""]), ("--label", arguments.get("labels", []))):
        for text in texts:
            style.check_text(option, text)
    if given:
        pairs = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        low, high = pairs.get("ylim", (0.0, 1.0))
        if low >= high:
            raise UserError(f"--ylim: expected the lower end first, got {low:g} {high:g}")
        arguments["frame"] = style.Frame(**(given | pairs))
    files, lines = getattr(importlib.import_module(f"rl.plots.{command}"), command)(output=place, **arguments)
    print("\n".join([*lines, *(f"written: {file}" for file in files)]))
    return 0


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of plot.py."""
    parser = Parser(prog="plot.py", description="Draw what runs learnt.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    command = commands.add_parser("curves", help="learning curves of training runs", allow_abbrev=False)
    command.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="a training run's log folder")
    command.add_argument(
        "--metric", nargs="+", default=["after_update"], metavar="NAME", dest="metrics",
        help="after_update, before_update, test/<k> or success/<k>; several returns, or several success rates, share "
             "a picture (default after_update)",
    )  # fmt: skip
    add_group_by(command)
    add_statistic(command)
    command.add_argument("--smooth", type=positive, default=1, metavar="N", help="draw means of N iterations")
    command.add_argument(
        "--x", choices=("iterations", "steps"), default="iterations", help="x axis; steps: environment steps sampled"
    )
    command.add_argument(
        "--reference", nargs="+", type=Path, default=[], metavar="FILE", dest="references", help="reference curves"
    )
    command.add_argument("--panel-by", choices=("environment",), default=None, help="a panel for each environment")
    add_frame(command, ylim=True)
    add_output(command, "curves")

    command = commands.add_parser("adaptation", help="return against the number of updates", allow_abbrev=False)
    command.add_argument("folders", nargs="+", type=Path, metavar="EVAL", help="an evaluation's folder")
    add_group_by(command)
    add_frame(command, ylim=True)
    add_output(command, "adaptation")

    add_table(commands)

    command = commands.add_parser("trajectories", help="where the agent went", allow_abbrev=False)
    command.add_argument("folder", type=Path, metavar="EVAL", help="an evaluation's folder")
    command.add_argument(
        "--tasks", type=positive, default=None, metavar="N", dest="most_tasks",
        help="tasks to show at most (default 8 where there are no more kinds of them, else 6)",
    )  # fmt: skip
    add_frame(command)
    add_output(command, "EVAL/trajectories")

    command = commands.add_parser("representation", help="how alike tasks are represented", allow_abbrev=False)
    command.add_argument("folder", type=Path, metavar="EVAL", help="an evaluation's folder, with activations")
    command.add_argument("--against", type=Path, default=None, metavar="EVAL", help="another one to compare with")
    add_frame(command)
    add_output(command, "EVAL/representation")

    command = commands.add_parser("gates", help="what the gates of a neuromodulated policy do", allow_abbrev=False)
    command.add_argument("folder", type=Path, metavar="EVAL", help="an evaluation's folder, with activations")
    add_frame(command)
    add_output(command, "EVAL/gates")
    return parser.parse_args(command_line)


def add_table(commands: Any) -> None:
    """The command that writes a table."""
    command = commands.add_parser("table", help="levels, differences and p-values as a table", allow_abbrev=False)
    command.add_argument(
        "folders", nargs="+", type=Path, metavar="EVAL", help="evaluations; the first is the baseline's"
    )
    add_group_by(command)
    command.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown", help="default markdown")
    command.add_argument(
        "--updates", nargs="+", type=count, default=None, metavar="N", help="after N updates (default: 1, and the last)"
    )
    add_statistic(command)
    add_output(command, "table")


def add_group_by(command: argparse.ArgumentParser) -> None:
    """The options that separate groups of seeds, and name them."""
    command.add_argument(
        "--group-by", type=lambda text: tuple(text.split(",")), default=(), metavar="NAME[,NAME]",
        help="names in config.json that separate groups even where they change no result, such as expname",
    )  # fmt: skip
    command.add_argument(
        "--label", nargs="+", default=[], metavar="TEXT", dest="labels", help="a name for each group, in their order"
    )


def add_statistic(command: argparse.ArgumentParser) -> None:
    """The option that says what stands for a group."""
    command.add_argument(
        "--statistic", choices=("mean", "iqm"), default="mean", help="over seeds; iqm: interquartile mean"
    )


def add_frame(command: argparse.ArgumentParser, ylim: bool = False) -> None:
    """The options that every picture has."""
    command.add_argument("--title", default=None, metavar="TEXT", help="instead of the picture's own")
    command.add_argument(
        "--size", nargs=2, type=inches, default=None, metavar=("WIDTH", "HEIGHT"), help="of the file, in inches"
    )
    if ylim:
        command.add_argument(
            "--ylim", nargs=2, type=finite, default=None, metavar=("LOW", "HIGH"), help="the ends of the y axis"
        )


def add_output(command: argparse.ArgumentParser, default: str) -> None:
    """The option that says where the files go."""
    command.add_argument(
        "--output", default=None, metavar="PATH", help=f"files, with or without suffix, or a folder ({default})"
    )


def count(text: str, least: int = 0) -> int:
    """A whole number of at least `least`."""
    try:
        return whole_number(text, least=least)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return count(text, 1)


def finite(text: str) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text[:20]!r}")
    return number


def inches(text: str) -> float:
    """A length from 1 to 50."""
    number = finite(text)
    if not 1 <= number <= 50:
        raise argparse.ArgumentTypeError(f"expected 1 to 50 inches, got {text[:20]!r}")
    return number
