"""How worker processes are started and ended."""

import contextlib
import fcntl
import functools
import multiprocessing.util
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import connection, resource_tracker
from pathlib import Path

from rl import start
from rl.errors import UserError

DESCRIPTORS, SPARE_DESCRIPTORS = 3, 12  # open files of a worker; those of a run besides
IN_USE = "neuromodulated-cavia"  # in the temporary folder of a running program, locked


def check_descriptors(num_workers: int) -> None:
    """Raise the process's limit of open files to what its workers need.

    Raises:
        UserError: the system does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/dev/fd")) - 1 + SPARE_DESCRIPTORS + DESCRIPTORS * num_workers
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except ValueError:
        raise UserError(
            f"--num-workers {num_workers}: {needed} open files and pipes needed, this process may have {hard}; "
            "expected fewer workers, or more in `ulimit -n`"
        ) from None


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While entered, processes can be started whatever the working directory and the terminal's signals."""
    _claim_temporary_folder()
    with _environment(), _uninterruptible():
        yield


@functools.cache
def _claim_temporary_folder() -> None:
    """Lock the temporary folder in which multiprocessing has the fork server's socket, and remove those of programs
    that were killed, whose locks the system has released. Where that is not possible, such folders stay.
    """
    if multiprocessing.parent_process() is not None:
        return  # it is the parent's, which outlives this process
    with contextlib.suppress(OSError):
        own = Path(multiprocessing.util.get_temp_dir())
        _lock(own / "new", os.O_CREAT | os.O_EXCL)  # kept open until the process ends
        os.rename(own / "new", own / IN_USE)  # locked already: nobody takes it for one that was left
        for path in own.parent.glob(f"pymp-*/{IN_USE}"):
            with contextlib.suppress(OSError):
                if path.parent != own and path.parent.lstat().st_uid == os.getuid():
                    handle = _lock(path)
                    shutil.rmtree(path.parent)
                    os.close(handle)


def _lock(path: Path, flags: int = 0) -> int:
    """The handle of a file that nobody else has locked.

    Raises:
        OSError: somebody has; or no such file, or a link.
    """
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Processes started here look for modules where this one does, and not in the folder that it was started from.
    Their libraries compute with one thread each, unless the user asks for more.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = sys.path if root in sys.path else [root, *sys.path]
    wanted = {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in (*wanted, *start.THREAD_COUNTS)}
    os.environ.update(wanted)
    start.compute_alone()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _uninterruptible() -> Iterator[None]:
    """Processes started here never see Ctrl-C or the end of a terminal, not even while they import: the
    parent ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    # Started later, this helper process of multiprocessing would unblock Ctrl-C.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process with the main one: a thread waits for the main process's end and then exits, whatever else runs.

    A process that is stopped, or hangs in a library, runs no threads. On Linux the system kills it when the fork server
    ends, which ends with the main process.
    """
    start.signal_at_parents_end(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("expected a process that another one started")

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
