"""Programs in processes that are forked where all is imported: they start at once, and can be sabotaged first.

What it takes to start Python and import torch, seconds each time, is in tests/torture.py's `Program`.
"""

import multiprocessing
import os
import signal
import sys
import uuid
from importlib import import_module
from multiprocessing.context import ForkServerProcess

from rl.sampling import processes
from tests.support.helpers import PATIENCE
from tests.torture import SHORT, Program, into

FEW = [*SHORT, "--num-batches", "4"]


def nothing():
    """No sabotage."""


class Forked(Program):
    """`main` of a program of rl/, at the head of a process group.

    Args:
        folder: where its output is kept.
        line: its options.
        program: main, test or plot; or a function in their place, which gives the exit status.
        sabotage: a function, and its arguments, that the process calls first.
        environment: further variables.
    """

    def __init__(self, folder, line, program="main", sabotage=(nothing,), **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.marker = uuid.uuid4().hex
        self.paths = [folder / f"{self.marker}.{name}" for name in ("out", "err")]
        for path in self.paths:
            path.touch()
        # What PyTorch imports when it first differentiates, too, once for all processes.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "rl.main", "rl.test", "torch.distributed", "sympy"])
        self.process = Process(
            self.paths, list(map(str, line)), program, sabotage, environment | {"MARKER": self.marker}
        )
        with processes.starting():
            self.process.start()


class Process(ForkServerProcess):
    """With the methods of subprocess.Popen that `Program` and its users call."""

    def __init__(self, *given):
        super().__init__()
        self.given = given

    def run(self):
        paths, line, program, (sabotage, *arguments), environment = self.given
        os.setsid()
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGHUP])
        streams = [path.open("w", buffering=1) for path in paths]
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        sys.stdout, sys.stderr = streams
        sabotage(*arguments)
        if isinstance(program, str):
            module = import_module(f"rl.{program}")
            sys.exit((module.program if program == "main" else module.main)(line))
        sys.exit(program(*line))

    def poll(self):
        return self.exitcode

    def wait(self, seconds):
        self.join(seconds)
        assert self.exitcode is not None, "no end"
        return self.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)


def run(folder, line, sabotage=nothing, *arguments):
    """Run main.py's main, which samples without workers, below a folder: (exit status, what it printed)."""
    program = Forked(folder, [*line, "--num-workers", "0", *into(folder)], sabotage=(sabotage, *arguments))
    status = program.process.wait(PATIENCE)
    return status, program.output + program.errors
