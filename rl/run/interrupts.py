"""Ctrl-C, SIGTERM and a closed terminal end a run between two states, never within one."""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

import torch

from rl.errors import UserError
from rl.sampling.jobs import WorkerError
from rl.start import complain, settle

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the process to end; `status` is the exit status by convention (130 for Ctrl-C, 143 for TERM,
    129 for HUP).
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupts:
    """While entered, the first signal raises `Interrupted` in the main thread; a second one ends the process at once.

    Inside of `shield` the first signal waits until the block is left.

    Args:
        alone: False for one of several ranks. torchrun sends them a signal, perhaps another one, as soon as one of them
            ends; the end is then under way, and nothing hurries it.
    """

    def __init__(self, alone: bool = True):
        self._alone = alone

    def __enter__(self) -> "Interrupts":
        self._shielded = False
        self._received: int | None = None
        # Python leaves signals to the main thread. nohup has the closing of a terminal ignored.
        main = threading.current_thread() is threading.main_thread()
        hup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        wanted = [number for number in SIGNALS if main and not (number == signal.SIGHUP and hup_ignored)]
        self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if self._alone else signal.SIG_IGN)

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Let a block of writing finish."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._received is not None:
            raise Interrupted(self._received)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is not None:
            if self._alone:
                os._exit(128 + number)
            return
        self._received = number
        if not self._shielded:
            raise Interrupted(number)


class RunError(UserError):
    """A run cannot continue; what it has saved stays."""

    status = 1


def as_run_error(error: BaseException | None) -> RunError | None:
    """An exception as a `RunError`, where it is the user's, a worker's or of PyTorch's memory; else None."""
    # Where CUDA or a library of its asks for memory, and not PyTorch, the error has no class of its own.
    full = isinstance(error, RuntimeError) and re.search(
        r"CUDA error: out of memory|_ALLOC_FAILED|Cuda failure .*out of memory", str(error)
    )
    if full or isinstance(error, torch.OutOfMemoryError):
        return RunError(
            "the GPU has not enough memory for the outer step; a smaller --learner-memory may help, or --device cpu"
        )
    if lacks_memory(error):
        return RunError(
            "the machine has not enough memory for the outer step; a smaller --learner-memory, fewer --learner-threads "
            "or fewer --num-workers may help"
        )
    return RunError(str(error)) if isinstance(error, (WorkerError, UserError)) else None


def exit_status(program: str, run: Callable[[Interrupts], int | None], alone: bool = True) -> int:
    """The exit status of a program: what it returns, 0 for None, or what stands for the error that ended it, printed in
    one line.

    Bad input is 2, a file (or standard output) that cannot be read or written 1, Ctrl-C 130, SIGTERM 143, SIGHUP 129.

    Args:
        program: its name, to begin the line with.
        alone: as of `Interrupts`.
    """
    try:
        with Interrupts(alone) as interrupts:
            status = run(interrupts)
            sys.stdout.flush()
            return status or 0
    except (RunError, WorkerError) as error:
        line, status = str(error), 1  # with the traceback in a worker
    except UserError as error:
        # Names of files may have several lines.
        line, status = str(error).replace("\n", "\\n"), error.status
    except OSError as error:
        # An error names its file, but not a stream, in which the line is still pending.
        name = error.filename or (None if settle(sys.stdout) else "standard output")
        line, status = (f"{name}: {error.strerror}" if name else str(error)).replace("\n", "\\n"), 1
    except MemoryError as error:
        line, status = f"not enough memory: {error}".rstrip(": "), 1
    except Interrupted as interrupted:
        line, status = f"interrupted ({interrupted})", interrupted.status
    except Exception as error:
        if not lacks_memory(error):
            raise
        line, status = "not enough memory for what PyTorch computes on the CPU", 1
    settle(sys.stdout)
    complain(f"{program}: {line}")
    return status


def lacks_memory(error: BaseException | None) -> bool:
    """Whether PyTorch found too little memory on the CPU: an error without a class of its own."""
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
