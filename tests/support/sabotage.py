"""Short runs of main.py, each in a process of its own that can sabotage itself first."""

import multiprocessing
import sys

from rl.run.build import Setup

from rl.main import main
from rl.sampling import processes
from tests.support.helpers import PATIENCE
from tests.support.in_process import InProcessSampler
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
    context.set_forkserver_preload(["rl.sampling.worker_pool"])
    output = folder / "output"
    process = context.Process(target=_main, args=([*line, *into(folder)], output, sabotage, arguments))
    with processes.starting():
        process.start()
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode, output.read_text()


def _main(line, output, sabotage, arguments):
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    Setup.sampler = lambda self: InProcessSampler(self.setting, self.config.tasks_per_group)
    sabotage(*arguments)
    sys.exit(main(line))
