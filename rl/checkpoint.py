"""Files of a run: policies, configurations, folders. Everything is written whole or not at all."""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from rl import arguments
from rl.errors import UserError

_PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "mujoco", "metaworld", "scikit-image", "tensorboardX")


class FolderError(UserError):
    """A run's folder cannot be made."""

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
        for attempt in range(1, 1000):
            run = group / (name if attempt == 1 else f"{name}-{attempt}")
            folders = cls(Path(config.logdir) / run, Path(config.savedir) / run)
            wanted = [folders.logs] if suffix else dict.fromkeys([folders.logs.resolve(), folders.saves.resolve()])
            made = []
            try:
                for folder in wanted:
                    folder.mkdir(parents=True)
                    made.append(folder)
                return folders
            except OSError as error:
                for folder in made:
                    folder.rmdir()
                if not isinstance(error, FileExistsError):
                    raise FolderError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from None
        raise FolderError(f"{Path(config.logdir) / group}: a thousand runs were started within this second")

    @contextlib.contextmanager
    def claimed(self):
        """While entered, no other process may work on this run.

        Raises:
            UserError: one does.
        """
        handle = os.open(self.logs, os.O_RDONLY)
        try:
            # Where a file system knows no locks, people have to take care.
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"{self.logs}: another process is at work on this run") from None
            yield
        finally:
            os.close(handle)

    def policy(self, iteration):
        """The file of the policy after an iteration."""
        return self.saves / f"policy-{iteration}.pt"


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


def write_config(folder, config, policy, env_config_path=None):
    """Write config.json, and a copy of the environment's configuration file where there is one.

    Args:
        folder: where.
        config: `Config`.
        policy: `MLPPolicy`, for the sizes.
        env_config_path: the file to copy.
    """
    content = {
        **dataclasses.asdict(config),
        "input_size": policy.architecture.observation_size,
        "output_size": policy.architecture.action_size,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    if env_config_path and Path(env_config_path).resolve() != (folder / Path(env_config_path).name).resolve():
        with replacing(folder / Path(env_config_path).name) as temporary:
            shutil.copyfile(env_config_path, temporary)
    # The last of the two, since it names the other.
    write_json(folder / "config.json", content)


def extend_config(folder, num_batches):
    """Note in a run's config.json that it goes on for longer; all else stays as it was written."""
    path = folder / "config.json"
    content = arguments.load_json(path)
    if content.get("num_batches") != num_batches:
        write_json(path, content | {"num_batches": num_batches})


def versions():
    """The versions of what decides numbers: name -> version, for the packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit():
    """The commit of this code, with '+' where the working tree differs; None outside of a checkout."""
    try:
        here = Path(__file__).parent
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            cwd=here, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def write_json(path, content):
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path, older=None):
    """A file is written under another name, flushed to the disk, then renamed: readers see the old one or the new.

    Args:
        path: the file.
        older: where the file before it is kept; default: nowhere.
    """
    temporary = Path(f"{path}.tmp")
    try:
        yield temporary
        _flush(temporary)
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(temporary, path)
        _flush(temporary.parent)
    except OSError as error:
        # A full disk has better uses for half a file.
        temporary.unlink(missing_ok=True)
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _flush(path):
    """Have the operating system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _save(path, content):
    # Torch's own writer of files tells of a full disk in riddles.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


def save_policy(path, params):
    """Save θ as a state dict with the published names."""
    with replacing(path) as temporary:
        _save(temporary, {name: value.detach().cpu() for name, value in params.items()})


@dataclasses.dataclass
class Counters:
    """What a run has met so far."""

    worker_restarts: int = 0
    no_update: int = 0
    rejected_nonfinite: int = 0
    rejected_in_a_row: int = 0
    flight_records: int = 0


@dataclasses.dataclass(frozen=True)
class State:
    """All that a run needs to go on, besides its configuration: everything random follows from the iteration.

    Attributes:
        iteration: the next one.
        params: θ.
        counters: `Counters`.
        positions: where the event files ended (`rl.logger.Logger.positions`).
    """

    iteration: int
    params: dict
    counters: Counters
    positions: dict


STATE, OLDER_STATE, DAMAGED_STATE = "state.pt", "state-older.pt", "state-damaged.pt"


def save_state(folder, state):
    """Save a `State`, keeping the one before it as a second generation."""
    facts = json.dumps(
        {"iteration": state.iteration, "counters": dataclasses.asdict(state.counters), "positions": state.positions}
    )
    params = {name: value.detach().cpu() for name, value in state.params.items()}
    with replacing(folder / STATE, older=folder / OLDER_STATE) as temporary:
        _save(temporary, {"facts": facts, "params": params, "digest": _digest(facts, params)})


def load_state(folder, policy):
    """Load the newest undamaged `State`, or None where a run has none yet.

    A damaged newest one is put aside, lest the next one saved push the good one out.

    Args:
        folder: where policies are saved.
        policy: `MLPPolicy`, whose parameters are expected.

    Raises:
        UserError: there are states, but all are damaged.
    """
    damage = []
    for name in (STATE, OLDER_STATE):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read_state(path, policy)
        except UserError as error:
            damage.append(str(error))
            continue
        for complaint in damage:
            print(f"warning: {complaint}; going on from {path.name}", file=sys.stderr)
            os.replace(folder / STATE, folder / DAMAGED_STATE)
        return state
    if damage:
        raise UserError("; ".join(damage))
    return None


def _read_state(path, policy):
    content = _load(path, "a run's state")
    try:
        facts, params = content["facts"], content["params"]
        intact = content["digest"] == _digest(facts, params)
        facts = json.loads(facts)
        counters, positions = Counters(**facts["counters"]), dict(facts["positions"])
        numbers = [facts["iteration"], *vars(counters).values(), *positions.values()]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(f"expected counts, found {numbers}")
        state = State(facts["iteration"], params, counters, positions)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged: {type(error).__name__}: {error}") from None
    if not intact:
        raise UserError(f"{path}: damaged: its contents do not agree with its checksum")
    _check_shapes(path, params, policy)
    return state


def _digest(facts, params):
    """SHA-256 of a state's contents."""
    digest = hashlib.sha256(facts.encode())
    for name, value in params.items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_flight_record(path, policy, options, params, episodes, origin):
    """Save all that an outer step saw, without pickles: `python -m tests.conformance --replay FILE` repeats it.

    Args:
        path: an npz file.
        policy: `MLPPolicy`.
        options: `rl.chunks.Options`.
        params: θ before the step.
        episodes: `Episodes` before and after the inner update.
        origin: `rl.rollout.Origin`, the seeds.
    """
    arrays = {f"param/{name}": value.detach().cpu().numpy() for name, value in params.items()}
    for phase, seen in zip(("before", "after"), episodes, strict=True):
        for name in ("observations", "actions", "rewards", "mask"):
            arrays[f"{phase}/{name}"] = getattr(seen, name)
    description = {
        "architecture": policy.architecture._asdict(),
        "options": options._asdict(),
        "origin": origin._asdict(),
    }
    with replacing(path) as temporary:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, description=json.dumps(description), **arrays)
        temporary.write_bytes(buffer.getvalue())


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
    content = _load(path, "a policy's state dict")
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors), found a {type(content).__name__}")
    _check_shapes(path, content, policy)
    return {name: content[name].to(torch.float32) for name in policy.shapes}


def _load(path, expected):
    """torch.load without code: whatever is wrong with the file is one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: expected {expected}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file can end in any of torch's, zip's and pickle's exceptions
        # Their texts advise to load it without precautions.
        reason = f"it is damaged, or holds more than tensors ({type(error).__name__})"
        raise UserError(f"{path}: expected {expected}: {reason}") from None


def _check_shapes(path, params, policy):
    """Hold a state dict against the policy's shapes."""
    expected = policy.shapes
    found = {name: tuple(value.shape) for name, value in params.items()}
    differences = [
        f"{name}: expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - 4} more)" if len(differences) > 4 else ""
        raise UserError(f"{path}: does not fit the configuration: {'; '.join(differences[:4])}{more}")


def _shape(shape):
    return "nothing" if shape is None else "×".join(map(str, shape)) or "a number"
