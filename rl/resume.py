"""Which run to go on with: `--resume`."""

import dataclasses
from pathlib import Path

from rl import arguments
from rl.checkpoint import Folders, group_of
from rl.errors import UserError

# Options that say how and where a run is computed, not what: they may differ when it is resumed.
FREE = (
    "num_batches", "num_workers", "worker_timeout", "device", "learner_memory", "make_deterministic", "logdir",
    "savedir",
)  # fmt: skip


def choose(command_line=None):
    """Read main.py's command line.

    Returns:
        (`Config`, the `Folders` of the run to resume, or None for a new run)

    Raises:
        UserError: a bad option, no such run, or options that would change the run's result.
    """
    given, resume = arguments.parse_given(command_line)
    if resume is None:
        return arguments.Config(**given), None
    if resume == "auto":
        config = arguments.Config(**given)
        folder = newest(config)
        if folder is None:
            print("--resume auto: no earlier run of this configuration; a new one begins")
            return config, None
        given = dataclasses.asdict(config)
    else:
        folder = Path(resume)
    saved, _ = arguments.load(folder / "config.json")
    defaults = arguments.Config()
    changes = {name: value for name, value in given.items() if value != getattr(saved, name)}
    refused = [
        f"{name}: {getattr(saved, name)} in the run, {value} given"
        for name, value in changes.items()
        if name not in FREE
    ]
    if refused:
        raise UserError(f"{folder}: these options would change the run: {'; '.join(sorted(refused))}")
    if changes.get("num_batches", saved.num_batches) < saved.num_batches:
        raise UserError(f"--num-batches: the run has {saved.num_batches}; expected that or more")
    # Folders named in a file are not followed: the saves lie in the default place unless the command line says where.
    places = {"logdir": str(logdir_of(folder)), "savedir": given.get("savedir", defaults.savedir)}
    config = dataclasses.replace(saved, **changes, **places, env_config_path=copied(folder, saved))
    folders = Folders(folder, Path(config.savedir, *folder.resolve().parts[-3:]))
    if not folders.saves.is_dir():
        raise UserError(f"{folders.saves}: the run's policies are not there; say where with --savedir")
    return config, folders


def logdir_of(folder):
    """The folder of all logs, from <logdir>/<env>/<method>/<run>."""
    return folder.resolve().parents[2]


def copied(folder, config):
    """The run's own copy of the environment's configuration file, or nothing."""
    if not config.env_config_path:
        return ""
    copy = folder / Path(config.env_config_path).name
    if not copy.is_file():
        raise UserError(f"{copy}: the run's copy of the environment's file is missing")
    return str(copy)


def newest(config):
    """The newest run folder with the same configuration, `FREE` options aside; None where there is none."""
    candidates = sorted(
        Path(config.logdir, group_of(config)).glob("*/config.json"), key=lambda path: path.stat().st_mtime
    )
    for path in reversed(candidates):
        try:
            saved, _ = arguments.load(path)
        except UserError:
            continue
        same = (
            getattr(saved, field.name) == getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name not in FREE
        )
        if all(same) and saved.num_batches <= config.num_batches:
            return path.parent
    return None
