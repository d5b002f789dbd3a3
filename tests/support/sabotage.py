"""Short runs of main.py, each in a process of its own that can sabotage itself first."""

import multiprocessing
import sys

from rl.main import main
from rl.sampling import processes
from tests.support.helpers import PATIENCE
from tests.torture import SHORT, into

FEW = [*SHORT, "--num-batches", "4"]


def nothing():
    """No sabotage."""


def run(folder, line, sabotage=nothing, *arguments):
    """Run main.py's main in a process of its own, which samples without workers: (exit status, what it printed).

    Args:
        folder: where its logs, policies and output go.
        line: its options.
        sabotage, arguments: a function that the process calls first, and what with.
    """
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    # Whatever main.py imports, and what PyTorch imports when it first differentiates, once for all runs.
    context.set_forkserver_preload(["tests.support.sabotage", "sympy"])
    output = folder / "output"
    process = context.Process(
        target=_main, args=([*line, "--num-workers", "0", *into(folder)], output, sabotage, arguments)
    )
    with processes.starting():
        process.start()
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode, output.read_text()


def _main(line, output, sabotage, arguments):
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    sabotage(*arguments)
    sys.exit(main(line))
