"""Files of a run: its folders, its configuration, its policies."""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import os
import shutil
from datetime import datetime
from pathlib import Path

import torch

from rl.config import NEUTRAL
from rl.errors import UserError
from rl.files import check_shapes, load_tensors, read_json, replacing, save_tensors, write_json
from rl.run.provenance import continued, provenance

POLICIES = "policy-*.pt"
LOCK = ".lock"
EXTENDED = ("num_batches", "continued")  # what `extend_config` changes in a config.json


class FolderError(UserError):
    """A run's folder cannot be made, or is gone."""

    status = 1  # as for a full disk


class Folders:
    """Where a run keeps its logs and its policies.

    Args:
        logs, saves: the two folders.
    """

    def __init__(self, logs, saves):
        self.logs, self.saves = Path(logs), Path(saves)

    @classmethod
    def make(cls, config, suffix=""):
        """New folders, never shared by two runs.

        Args:
            config: `Config`.
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
            wanted = [folders.logs] if suffix else both
            made = []
            try:
                for folder in wanted:
                    folder.mkdir(parents=True)
                    made.append(folder)
                return folders
            except OSError as error:
                for folder in made:
                    folder.rmdir()
                # Another run has this name: the next one. A link to nowhere on the way there is no such case.
                if not isinstance(error, FileExistsError) or error.filename != str(folder):
                    raise FolderError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from None

    @contextlib.contextmanager
    def claimed(self):
        """While entered, no other process may work on this run.

        Raises:
            UserError: one does.
        """
        with contextlib.ExitStack() as locks:
            # Both, since copies of a log folder share the policies' folder; once, where they are the same.
            for folder in dict.fromkeys([self.logs.resolve(), self.saves.resolve()]):
                locks.enter_context(_locked(folder))
            yield

    def missing(self):
        """The file without which one of the folders is no longer the run's, or None while both are."""
        files = (folder / "config.json" for folder in (self.logs, self.saves))
        return next((file for file in files if not file.is_file()), None)

    def check(self):
        """Find out, before something is written, whether the run still has its folders.

        Raises:
            FolderError: one of them is gone.
        """
        missing = self.missing()
        if missing:
            raise FolderError(f"{missing}: gone; the run's folder was deleted, moved or emptied while the run went on")

    def policy(self, iteration):
        """The file of the policy after an iteration."""
        return self.saves / f"policy-{iteration}.pt"


@contextlib.contextmanager
def _locked(folder):
    """While entered, no other process has this folder.

    The lock is that of a file open for writing: of such locks NFS tells other machines, and of a folder's it does not.
    The file stays: were it removed, one process could hold its lock, and another that of a new one.

    Raises:
        UserError: one has.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
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


def group_of(config, suffix=""):
    """<env>/<method>, the folder of all runs of a method."""
    return Path(config.env_name.replace(":", "_").replace("/", "_"), config.method + suffix)


def run_name(config, now):
    """<C>_seed=<s>fo=<bool>lr=<lr>tau=<tau>_<date>_<time>_<expname>, as published."""
    name = (
        f"{config.num_context_params}_seed={config.seed}fo={config.first_order}lr={config.fast_lr}tau={config.tau}"
        f"_{now:%Y-%m-%d_%H-%M-%S}"
    )
    return f"{name}_{config.expname}" if config.expname else name


def write_config(folder, config, policy, env_config_path=None, device=None):
    """Write config.json, and a copy of the environment's configuration file where there is one.

    Args:
        folder: where.
        config: `Config`.
        policy: `MLPPolicy`, for the sizes.
        env_config_path: the file to copy.
        device: what is used, where that is not `--device`.
    """
    content = {
        **dataclasses.asdict(config),
        "input_size": policy.architecture.observation_size,
        "output_size": policy.architecture.action_size,
        **provenance(device or config.device),
    }
    if env_config_path and Path(env_config_path).resolve() != (folder / Path(env_config_path).name).resolve():
        with replacing(folder / Path(env_config_path).name) as temporary:
            shutil.copyfile(env_config_path, temporary)
    # The last of the two, since it names the other.
    write_json(folder / "config.json", content)


def copied(folder, config, advice=""):
    """The run's own copy of the environment's configuration file: its path, or "" where it has none.

    Args:
        folder: where config.json lies.
        config: `Config`.
        advice: what is added to the error.

    Raises:
        UserError: it is missing.
    """
    if not config.env_config_path:
        return ""
    copy = folder / Path(config.env_config_path).name
    if not copy.is_file():
        raise UserError(f"{copy}: the run's copy of the environment's file is missing{advice}")
    return str(copy)


def extend_config(folders, config, iteration):
    """Note in both config.json of a run that goes on how long and, where that has changed, what with; all else stays as
    it was written.

    Args:
        folders: its `Folders`, claimed.
        config: its `Config` now.
        iteration: the next one.
    """
    # Between the two writes nothing is computed: where a process ended there, the logs' is the one that holds.
    said = read_json(folders.logs / "config.json")
    entries = continued(said, iteration, config.device) if iteration < config.num_batches else said.get("continued")
    extension = {"num_batches": config.num_batches} | ({"continued": entries} if entries else {})
    for folder in (folders.saves, folders.logs):
        path = folder / "config.json"
        content = read_json(path)
        if {name: content[name] for name in EXTENDED if name in content} != extension:
            write_json(path, {name: value for name, value in content.items() if name != "continued"} | extension)


def deciding(config):
    """What decides a run's result, for its state: the options that are not neutral, and the environment's file by its
    content.
    """
    options = {name: value for name, value in vars(config).items() if name not in NEUTRAL}
    if config.env_config_path:
        digest = hashlib.sha256(Path(config.env_config_path).read_bytes()).hexdigest()
        options["env_config_path"] = f"a file of SHA-256 {digest}"
    return options


def save_policy(path, params):
    """Save θ as a state dict with the published names."""
    with replacing(path) as temporary:
        save_tensors(temporary, {name: value.detach().cpu() for name, value in params.items()})


def load_policy(path, policy):
    """Load θ for a policy.

    Args:
        path: a state dict saved by this code or by the published one.
        policy: `MLPPolicy`.

    Returns:
        dict of float32 tensors in the policy's own order

    Raises:
        UserError: no such file, something else than a state dict, or one of another shape.
    """
    content = load_tensors(path, "a policy's state dict")
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors), found a {type(content).__name__}")
    check_shapes(path, content, policy)
    params = {}
    for name in policy.shapes:
        value = content[name]
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise UserError(f"{path}: {name}: expected a dense tensor of real numbers, found another kind of tensor")
        params[name] = value.to(torch.float32)
        if not params[name].isfinite().all():
            raise UserError(f"{path}: {name}: expected finite numbers, found others")
    return params
