"""Ctrl-C and SIGTERM end a run between two states, never within one."""

import contextlib
import os
import signal
import sys

from rl.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the process to end; `status` is the exit status by convention (130 for Ctrl-C, 143 for TERM)."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupts:
    """While entered, the first signal raises `Interrupted` in the main thread; a second one ends the process at once.

    Inside of `shield` the first signal waits until the block is left.
    """

    def __enter__(self):
        self._shielded = False
        self._received = None
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
            os._exit(128 + number)
        self._received = number
        if not self._shielded:
            raise Interrupted(number)


def exit_status(program, run):
    """The exit status of a program: what it returns, or what stands for the error that ended it, told in one line.

    Bad input is 2, a file that cannot be read or written 1, Ctrl-C 130 and SIGTERM 143.

    Args:
        program: its name, to begin the line with.
        run: function of the entered `Interrupts`.
    """
    try:
        with Interrupts() as interrupts:
            return run(interrupts)
    except UserError as error:
        told, status = str(error), error.status
    except OSError as error:
        told, status = f"{error.filename}: {error.strerror}" if error.filename else str(error), 1
    except Interrupted as interrupted:
        told, status = f"interrupted ({interrupted})", interrupted.status
    print(f"{program}: {told}", file=sys.stderr)
    return status
