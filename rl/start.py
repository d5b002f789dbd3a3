"""What a program and a worker do first, before torch is imported: nothing here may take long or need a package.

To import the package as a library does none of it: the process is the user's.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import os
import signal
import sys
import threading
from typing import Any

# What libraries for numbers look at when they are loaded: how many threads of their own they may start.
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# The programs, modules of rl, and the console commands that start them.
CONSOLE_COMMANDS = {"main": "nmcavia-train", "test": "nmcavia-test", "plot": "nmcavia-plot"}


def run(program: str) -> int:
    """Prepare the process, then import and run `main`, `test` or `plot`: its exit status."""
    # Imports take a while. Until a run handles Ctrl-C, it ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    compute_alone()
    keep_torch_quiet()
    keep_freed_memory()
    open_streams()
    module = importlib.import_module(f"rl.{program}")
    status: int = (module.program if program == "main" else module.main)()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        # Python would wait for threads that the user's code has left.
        atexit._run_exitfuncs()
        settle(sys.stdout), settle(sys.stderr)
        os._exit(status)
    return status


# What the console commands call.
train, test, plot = (functools.partial(run, program) for program in CONSOLE_COMMANDS)


def command(program: str, *launcher: str) -> list[str]:
    """The words by which the user, who started one of the programs, can start `main`, `test` or `plot`.

    Args:
        program: which of the three.
        launcher: torchrun and its options, where it starts the program.
    """
    typed, name = os.path.split(sys.argv[0])
    spec = sys.modules["__main__"].__spec__
    if name in CONSOLE_COMMANDS.values():
        import shutil  # imports much

        on_path = shutil.which(name) == sys.argv[0]
        other = CONSOLE_COMMANDS[program]
        return [*launcher, *(["--no-python"] if launcher else []), other if on_path else os.path.join(typed, other)]
    if spec is not None and spec.parent == "rl":
        return [*(launcher or ["python"]), "-m", f"rl.{program}"]
    folder = typed if name.removesuffix(".py") in CONSOLE_COMMANDS else ""
    return [*(launcher or ["python"]), os.path.join(folder, f"{program}.py")]


def compute_alone() -> None:
    """One thread for each library, unless the user asks for more: workers, and the learner's threads, are enough.

    Before torch is imported. Processes started later inherit it.
    """
    for name in THREAD_COUNTS:
        os.environ.setdefault(name, "1")


def keep_torch_quiet() -> None:
    """No lines of torch's own on standard error, unless the user asks for them: of a connection that is lost, an
    exception tells as well, and becomes the program's one line.

    Before torch is imported. Processes started later inherit it.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def open_streams() -> None:
    """Standard streams can be printed to whatever the encoding, and where they were closed."""
    # What is closed is opened to nowhere, lest the next file take its number and be printed into.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    # Line by line, whatever PYTHONUNBUFFERED says: a line that cannot be written stays pending, which tells that the
    # error is this stream's.
    encoding = sys.stdout.encoding if sys.stdout else None
    sys.stdout = open(1, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", 1, closefd=False)  # noqa: SIM115


def signal_at_parents_end(number: int) -> None:
    """Have Linux send this process a signal when the one that started it ends. Elsewhere nothing happens."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next iteration, which asks for the same again.

    It would return large blocks to the system at once, and the system would clear every page anew: a sixth of a
    Half-Cheetah iteration. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
    mallopt(arena_max, 1)  # the arenas of threads return their memory whatever the thresholds are
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc accepts
    mallopt(trim_threshold, 2**31 - 1)


def complain(line: str) -> None:
    """Print a line on standard error; where that is gone, as a terminal can be, do nothing."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    settle(sys.stderr)


def settle(stream: Any) -> bool:
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
