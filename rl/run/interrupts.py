"""Ctrl-C, SIGTERM and a closed terminal end a run between two states, never within one."""

import contextlib
import os
import signal
import sys

from rl.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the process to end; `status` is the exit status by convention (130 for Ctrl-C, 143 for TERM,
    129 for HUP).
    """

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupts:
    """While entered, the first signal raises `Interrupted` in the main thread; a second one ends the process at once.

    Inside of `shield` the first signal waits until the block is left.

    Args:
        alone: False for one of several ranks. torchrun sends them a signal, perhaps another one, as soon as one of them
            ends: then the end is under way, and nothing hurries it.
    """

    def __init__(self, alone=True):
        self._alone = alone

    def __enter__(self):
        self._shielded = False
        self._received = None
        # nohup has the closing of a terminal ignored.
        wanted = [number for number in SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)]
        self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler if self._alone else signal.SIG_IGN)

    @contextlib.contextmanager
    def shield(self):
        """Let a block of writing finish."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._received is not None:
            raise Interrupted(self._received)

    def _handle(self, number, _frame):
        if self._received is not None:
            if self._alone:
                os._exit(128 + number)
            return
        self._received = number
        if not self._shielded:
            raise Interrupted(number)


def exit_status(program, run, ranks=None):
    """The exit status of a program: what it returns, or what stands for the error that ended it, told in one line.

    Bad input is 2, a file (or standard output) that cannot be read or written 1, Ctrl-C 130, SIGTERM 143, SIGHUP 129.

    Args:
        program: its name, to begin the line with.
        run: function of the entered `Interrupts`.
        ranks: `rl.ranks.Ranks`, of which one alone tells the error, where there may be several.
    """
    try:
        with Interrupts(ranks is None or ranks.size == 1) as interrupts:
            status = run(interrupts)
            sys.stdout.flush()
            return status
    except UserError as error:
        told, status = str(error), error.status
    except OSError as error:
        # An error names its file, but not a stream, in which the line is still pending.
        name = error.filename or (None if settle(sys.stdout) else "standard output")
        told, status = f"{name}: {error.strerror}" if name else str(error), 1
    except MemoryError as error:
        told, status = f"not enough memory: {error}".rstrip(": "), 1
    except Interrupted as interrupted:
        told, status = f"interrupted ({interrupted})", interrupted.status
    except Exception as error:
        if not lacks_memory(error):
            if ranks:
                ranks.speaks(1)  # its traceback is what is told
            raise
        told, status = "not enough memory for what PyTorch computes on the CPU", 1
    settle(sys.stdout)
    speaks, status = ranks.speaks(status) if ranks else (True, status)
    if speaks:
        complain(f"{program}: {told}")
    if ranks:
        ranks.end(status)
    return status


def lacks_memory(error):
    """Whether PyTorch found too little memory on the CPU: an error without a class of its own."""
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def complain(line):
    """Print a line on standard error; where that is gone, as a terminal can be, nobody is told."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    settle(sys.stderr)


def settle(stream):
    """Write what is pending; returns whether that was possible. If not, it is dropped, lest Python try again at its
    end.
    """
    try:
        stream.flush()
        return True
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return False
