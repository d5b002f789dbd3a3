"""Which run to resume, and whether it can be: `--resume`."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rl import start
from rl.config import NEUTRAL, RESUMABLE, Config, load_config, parse_given, without_effect
from rl.errors import UserError
from rl.files import sha256
from rl.ranks import Ranks
from rl.run import provenance
from rl.run.checkpoint import STATE, State, load_state
from rl.run.config_file import copy_of_env_file, first_written, result_options
from rl.run.folders import POLICIES, Folders, group_of
from rl.run.metrics import PROGRESS
from rl.run.setup import Setup


def choose(command_line: Sequence[str] | None = None) -> tuple[Config, Folders | None]:
    """Read main.py's command line.

    Returns:
        (`Config`; the `Folders` of the run to resume, or None for a new run)

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
        digest(config.env_config_path)
        folder = newest(config, warn=lambda line: print(f"warning: {line}", file=sys.stderr))
        if folder is None:
            print("--resume auto: no earlier run of this configuration; a new one begins")
            return config, None
        given = dataclasses.asdict(config)
    else:
        folder = Path(resume)
    return resumed(folder, given)


def resumed(folder: Path, given: dict[str, Any]) -> tuple[Config, Folders]:
    """The run in a log folder, with the options given beside --resume.

    Raises:
        UserError: it is no such folder, or the options would change the run's result.
    """
    saved, description = load_config(folder / "config.json")
    check_logs(folder, saved)
    changes = differences(folder, saved, given, description)
    refused = [
        f"{name}: {getattr(saved, name)} in the run, {value} given"
        for name, value in changes.items()
        if name not in NEUTRAL | RESUMABLE
    ]
    if refused:
        raise UserError(f"{folder}: these options would change the run: {'; '.join(sorted(refused))}")
    if changes.get("num_batches", saved.num_batches) < saved.num_batches:
        raise UserError(f"--num-batches: the run has {saved.num_batches}; expected that or more")
    where = {"logdir": str(logdir_of(folder)), "savedir": given.get("savedir") or savedir_of(folder, saved)}
    config = dataclasses.replace(saved, **(changes | where), env_config_path=copy_of_env_file(folder, saved))
    folders = Folders(folder, Path(config.savedir, *folder.resolve().parts[-3:]))
    if not folders.saves.is_dir():
        raise UserError(f"{folders.saves}: the run's policies are not there; say where with --savedir")
    for warning in provenance.changes(description, config.device):
        print(f"warning: {warning}; the results may differ in their last digits or more", file=sys.stderr)
    return config, folders


def savedir_of(folder: Path, saved: Config) -> str:
    """The folder of all policies: `saves` beside the folder of all logs or, where the run's are not there, where it put
    them: the same config.json has to lie there, too.

    A config.json that was changed, or is somebody else's, is not followed to any other folder. In a copy of all of a
    run, `saves` is the copy's.

    Raises:
        UserError: the policies are in both, and differ.
    """
    names, beside = folder.resolve().parts[-3:], logdir_of(folder).parent / Config.savedir
    places = [Path(savedir, *names) for savedir in (beside, saved.savedir)]
    here, there = (
        (path := place / "config.json").is_file() and first_written(path) == first_written(folder / "config.json")
        for place in places
    )
    # They are compared as first written: a process may have ended when it had extended one of the two.
    if here and there and not places[0].samefile(places[1]):
        states = [path.read_bytes() if (path := place / STATE).is_file() else None for place in places]
        if states[0] != states[1]:
            raise UserError(
                f"{folder}: its policies are in {places[0]} and, others, in {places[1]}; say with --savedir which to "
                f"take: {beside} or {saved.savedir}"
            )
        return str(beside)
    return saved.savedir if there else str(beside)


def check_logs(folder: Path, saved: Config) -> None:
    """Refuse the folder of a run's policies, which has the same config.json. Logs and policies may lie in one folder.

    Raises:
        UserError: naming the log folder that belongs to it.
    """
    together = os.path.abspath(saved.logdir) == os.path.abspath(saved.savedir)
    policies = (folder / STATE).exists() or any(folder.glob(POLICIES))
    if not together and policies and not (folder / PROGRESS).exists():
        logs = Path(saved.logdir, *folder.resolve().parts[-3:])
        raise UserError(f"{folder}: holds a run's policies; expected its log folder, which was {logs}")


def load(setup: Setup, folders: Folders) -> State:
    """The state of a run to resume.

    Args:
        folders: claimed.

    Raises:
        UserError: the state is missing or damaged, or was made with other options.
    """
    config = setup.config
    state = load_state(folders.saves, setup.policy, setup.outer_step)
    now = result_options(config)
    changed = [
        f"{name}: {state.options[name]} when the run's state was saved, now {now[name]}"
        for name in sorted(state.options.keys() & now.keys())
        if state.options[name] != now[name]
        and (name not in RESUMABLE or (name == "num_batches" and now[name] < state.options[name]))
    ]
    if changed:
        raise UserError(
            f"{folders.logs}: what decides the run's result was changed: {'; '.join(changed)}; change it back, or "
            "begin a new run"
        )
    return state


def command(config: Config, folders: Folders, ranks: Ranks) -> str:
    """The command line that resumes a run, for as many ranks where they are all on this machine."""
    launcher: list[str] = []
    if ranks.size > 1 and ranks.size == ranks.local_size:
        launcher = ["torchrun", "--standalone", "--nproc-per-node", str(ranks.size)]
    words = [*start.command("main", *launcher), "--resume", str(folders.logs)]
    if Path(config.savedir).resolve() != Path(Config.savedir).resolve():
        words += ["--savedir", config.savedir]
    return shlex.join(words)


def differences(folder: Path, saved: Config, given: dict[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """The given options that differ from a run's: name -> value given.

    Files are compared by content, wherever they lie: the environment's with the run's own copy, that of --init (if it
    is still there) with what config.json says of it.

    Args:
        folder: where the run's config.json lies.
        saved, description: as `load_config` reads it.
        given: names -> values.

    Raises:
        UserError: one of the two files cannot be read.
    """
    found = {name: value for name, value in given.items() if value != getattr(saved, name)}
    if "env_config_path" in given:
        found.pop("env_config_path", None)
        if digest(given["env_config_path"]) != digest(copy_of_env_file(folder, saved)):
            found["env_config_path"] = f"{given['env_config_path'] or 'none'}, of another content,"
    if "init_sha256" in description and (path := given.get("init")) and Path(path).is_file():
        found.pop("init", None)
        if sha256(path, "a policy") != description["init_sha256"]:
            found["init"] = f"{path}, of another content,"
    return found


def digest(path: str) -> str:
    """The SHA-256 of an environment's file; empty where none is named."""
    return sha256(path, "an environment's file") if path else ""


def logdir_of(folder: Path) -> Path:
    """The folder of all logs, from <logdir>/<env>/<method>/<run>."""
    resolved = folder.resolve()
    if len(resolved.parents) < 3:
        raise UserError(f"{folder}: expected a run's folder, <logdir>/<env>/<method>/<run>")
    return resolved.parents[2]


def newest(config: Config, warn: Callable[[str], None] = lambda line: None) -> Path | None:
    """The newest run folder with the same configuration, `RESUMABLE` options aside; None where there is none.

    Args:
        warn: takes a line about each run passed over because it cannot be read.
    """
    candidates = sorted(
        Path(config.logdir, group_of(config)).glob("*/config.json"), key=lambda path: path.stat().st_mtime
    )
    for path in reversed(candidates):
        try:
            saved, description = load_config(path)
            changes = differences(path.parent, saved, dataclasses.asdict(config), description)
        except UserError as error:
            warn(f"{error}; --resume auto passes over this run")
            continue
        if changes.keys() <= RESUMABLE and saved.num_batches <= config.num_batches:
            return path.parent
    return None
