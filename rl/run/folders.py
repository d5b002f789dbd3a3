"""A run's folders: <logdir>/<env>/<method>/<run> for its logs, <savedir>/<env>/<method>/<run> for its policies."""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rl.config import Config
from rl.errors import UserError
from rl.files import no_link, remove_unfinished

POLICIES = "policy-*.pt"
LOCK = ".lock"


class FolderError(UserError):
    """A run's folder cannot be made, or is gone."""

    status = 1  # as for a full disk


class Folders:
    """Where a run keeps its logs and its policies."""

    def __init__(self, logs: Path, saves: Path):
        self.logs, self.saves = Path(logs), Path(saves)

    @classmethod
    def make(cls, config: Config, suffix: str = "") -> "Folders":
        """New folders, never shared by two runs.

        Args:
            suffix: appended to the method's folder (`_test` for evaluations, which save nothing).

        Raises:
            FolderError: a folder cannot be made.
        """
        group = group_of(config, suffix)
        name = run_name(config, datetime.now())
        for attempt in itertools.count(1):
            run = group / (name if attempt == 1 else f"{name}-{attempt}")
            folders = cls(Path(config.logdir) / run, Path(config.savedir) / run)
            # realpath takes a loop of links as it is: making the folder then says what is wrong.
            both = dict.fromkeys(Path(os.path.realpath(folder)) for folder in (folders.logs, folders.saves))
            made = []
            try:
                for folder in [folders.logs] if suffix else both:
                    folder.mkdir(parents=True)
                    made.append(folder)
                return folders
            except OSError as error:
                for made_folder in made:
                    made_folder.rmdir()
                # Another run has this name: the next one. A link to nowhere on the way there is no such case.
                if not isinstance(error, FileExistsError) or error.filename != str(folder):
                    raise FolderError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from None
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """While entered, no other process may work on this run.

        Raises:
            UserError: one does.
        """
        with contextlib.ExitStack() as locks:
            # Both, since copies of a log folder share the policies' folder; once, where they are the same.
            for folder in dict.fromkeys([self.logs.resolve(), self.saves.resolve()]):
                locks.enter_context(_locked(folder))
                remove_unfinished(folder)
            yield

    def missing(self) -> Path | None:
        """The file without which one of the folders is no longer the run's, or None while both are."""
        files = (folder / "config.json" for folder in (self.logs, self.saves))
        return next((file for file in files if not file.is_file()), None)

    def check(self) -> None:
        """Find out, before something is written, whether the run still has its folders.

        Raises:
            FolderError: one of them is gone.
        """
        if missing := self.missing():
            raise FolderError(f"{missing}: gone; the run's folder was deleted, moved or emptied during the run")

    def policy(self, iteration: int) -> Path:
        """The file of the policy after an iteration."""
        return self.saves / f"policy-{iteration}.pt"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While entered, no other process has this folder.

    The lock is that of a file open for writing: of such locks NFS tells other machines, and of a folder's it does not.
    The file stays: were it removed, one process could hold its lock, and another that of a new one.

    Raises:
        UserError: one has.
    """
    handle = no_link(str(folder / LOCK), os.O_RDWR | os.O_CREAT)
    try:
        # Where a file system knows no locks, people have to take care.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process is at work on this run") from None
        yield
    finally:
        os.close(handle)


def group_of(config: Config, suffix: str = "") -> Path:
    """<env>/<method>, the folder of all runs of a method."""
    return Path(config.env_name.replace(":", "_").replace("/", "_"), config.method + suffix)


def run_name(config: Config, now: datetime) -> str:
    """<C>_seed=<s>fo=<bool>lr=<lr>tau=<tau>_<date>_<time>_<expname>, as published."""
    name = (
        f"{config.num_context_params}_seed={config.seed}fo={config.first_order}lr={config.fast_lr}tau={config.tau}"
        f"_{now:%Y-%m-%d_%H-%M-%S}"
    )
    return f"{name}_{config.expname}" if config.expname else name
