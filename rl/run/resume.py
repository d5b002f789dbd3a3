"""Which run to go on with: `--resume`."""

import dataclasses
import os
import shlex
import sys
from pathlib import Path

import torch

from rl import start
from rl.config import RESUMABLE, Config, load_config, parse_given, without_effect
from rl.errors import UserError
from rl.evaluation.runs import EVENTS
from rl.files import check_file, read_json
from rl.run import provenance
from rl.run.folders import EXTENDED, POLICIES, Folders, copied, deciding, group_of
from rl.run.state import OLDER_STATE, STATE, OptionsChanged, load_state, states


def choose(command_line=None):
    """Read main.py's command line.

    Returns:
        (`Config`, the `Folders` of the run to resume, or None for a new run)

    Raises:
        UserError: a bad option, no such run, or options that would change its result.
    """
    given, resume = parse_given(command_line)
    if resume in (None, "auto"):
        config = Config(**given)
        for warning in without_effect(given, config, torch.cuda.is_available()):
            print(f"warning: {warning}", file=sys.stderr)
    if resume is None:
        return config, None
    if resume == "auto":
        # Where the file given cannot be read, that is no fault of the runs that it would be compared with.
        content(config.env_config_path)
        folder = newest(config, tell=lambda line: print(f"warning: {line}", file=sys.stderr))
        if folder is None:
            print("--resume auto: no earlier run of this configuration; a new one begins")
            return config, None
        given = dataclasses.asdict(config)
    else:
        folder = Path(resume)
    saved, description = load_config(folder / "config.json")
    check_logs(folder, saved)
    changes = differences(folder, saved, given)
    refused = [
        f"{name}: {getattr(saved, name)} in the run, {value} given"
        for name, value in changes.items()
        if name not in RESUMABLE
    ]
    if refused:
        raise UserError(f"{folder}: these options would change the run: {'; '.join(sorted(refused))}")
    if changes.get("num_batches", saved.num_batches) < saved.num_batches:
        raise UserError(f"--num-batches: the run has {saved.num_batches}; expected that or more")
    places = {"logdir": str(logdir_of(folder)), "savedir": given.get("savedir") or savedir_of(folder, saved)}
    config = dataclasses.replace(saved, **(changes | places), env_config_path=copied(folder, saved))
    folders = Folders(folder, Path(config.savedir, *folder.resolve().parts[-3:]))
    if not folders.saves.is_dir():
        raise UserError(f"{folders.saves}: the run's policies are not there; say where with --savedir")
    for warning in provenance.changes(description, config.device):
        print(f"warning: {warning}; the results may differ in their last digits or more", file=sys.stderr)
    return config, folders


def savedir_of(folder, saved):
    """The folder of all policies: where the run put them, if the same config.json lies there, too; else the default.

    A config.json that was changed, or is somebody else's, is not followed to any place.
    """
    there = Path(saved.savedir, *folder.resolve().parts[-3:], "config.json")
    if there.is_file() and begun_as(there) == begun_as(folder / "config.json"):
        return saved.savedir
    return Config().savedir


def begun_as(path):
    """What a config.json says of the run's beginning: a process may have ended when it had extended one of the two."""
    return {name: value for name, value in read_json(path).items() if name not in EXTENDED}


def check_logs(folder, saved):
    """Hold a folder against what a log folder is: that of a run's policies has the same config.json.

    Logs and policies may lie in one folder, made so or moved there: then there are events beside the policies.

    Raises:
        UserError: naming the log folder that belongs to it.
    """
    together = os.path.abspath(saved.logdir) == os.path.abspath(saved.savedir)
    if not together and (states(folder) or any(folder.glob(POLICIES))) and not any(folder.glob(EVENTS)):
        logs = Path(saved.logdir, *folder.resolve().parts[-3:])
        raise UserError(f"{folder}: holds a run's policies; expected its log folder, which was {logs}")


def load(config, folders, policy):
    """Load the `State` of a run to resume; None where it has begun and nothing was written yet.

    Args:
        config: its `Config`.
        folders: its `Folders`, claimed.
        policy: `MLPPolicy`.

    Raises:
        UserError: the state is missing or damaged, or was made with other options.
    """
    written = [*folders.saves.glob(POLICIES), *folders.logs.glob(EVENTS)]
    if written and not states(folders.saves):
        raise UserError(
            f"{folders.saves / STATE}: the run has begun ({written[0].name} is there), but its state is missing, so it "
            f"cannot go on; bring {STATE} or {OLDER_STATE} back, or begin a new run without --resume"
        )
    try:
        return load_state(folders.saves, policy, deciding(config))
    except OptionsChanged as error:
        raise UserError(
            f"{folders.logs}: what decides the run's result was changed: {error}; change it back, or begin a new run"
        ) from None


def command(config, folders, ranks):
    """The command line that resumes a run, for as many ranks where they are all on this machine."""
    words = ["python"]
    if ranks.size > 1 and ranks.size == ranks.local_size:
        words = ["torchrun", "--standalone", "--nproc-per-node", str(ranks.size)]
    words += [start.path_of("main.py"), "--resume", str(folders.logs)]
    if Path(config.savedir).resolve() != Path(Config().savedir).resolve():
        words += ["--savedir", config.savedir]
    return shlex.join(words)


def differences(folder, saved, given):
    """The given options that differ from a run's: name -> value given.

    The environment's file is compared by content, wherever it lies, with the run's own copy.

    Raises:
        UserError: one of the two files cannot be read.
    """
    found = {name: value for name, value in given.items() if value != getattr(saved, name)}
    if "env_config_path" in given:
        found.pop("env_config_path", None)
        if content(given["env_config_path"]) != content(copied(folder, saved)):
            found["env_config_path"] = f"{given['env_config_path'] or 'none'}, of another content,"
    return found


def content(path):
    """The bytes of a file; None where no file is named."""
    if not path:
        return None
    check_file(path, "an environment's file")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def logdir_of(folder):
    """The folder of all logs, from <logdir>/<env>/<method>/<run>."""
    resolved = folder.resolve()
    if len(resolved.parents) < 3:
        raise UserError(f"{folder}: expected a run's folder, <logdir>/<env>/<method>/<run>")
    return resolved.parents[2]


def newest(config, tell=lambda line: None):
    """The newest run folder with the same configuration, `RESUMABLE` options aside; None where there is none.

    Args:
        config: `Config`.
        tell: function of a line about each run passed over because it cannot be read.
    """
    candidates = sorted(
        Path(config.logdir, group_of(config)).glob("*/config.json"), key=lambda path: path.stat().st_mtime
    )
    for path in reversed(candidates):
        try:
            saved, _ = load_config(path)
            changes = differences(path.parent, saved, dataclasses.asdict(config))
        except UserError as error:
            tell(f"{error}; --resume auto passes over this run")
            continue
        if changes.keys() <= RESUMABLE and saved.num_batches <= config.num_batches:
            return path.parent
    return None
