"""config.json: what a run is, written beside its logs and beside its policies."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from rl.config import NEUTRAL, Config
from rl.errors import UserError
from rl.files import read_json, replacing, sha256, write_json
from rl.policies import MLPPolicy
from rl.run.folders import Folders
from rl.run.provenance import continued, provenance

EXTENDED = ("num_batches", "continued")  # what `extend` changes


def write(
    folder: Path, config: Config, policy: MLPPolicy, device: str | None = None, run_seed: int | None = None
) -> None:
    """Write config.json, and a copy of the environment's configuration file where there is one.

    Args:
        policy: for the sizes.
        device: what is used, where that is not `--device`.
        run_seed: in an evaluation, the seed of the training run.
    """
    content = {
        **dataclasses.asdict(config),
        "input_size": policy.architecture.observation_size,
        "output_size": policy.architecture.action_size,
        **({} if run_seed is None else {"run_seed": run_seed}),
        **({"init_sha256": sha256(config.init, "a policy")} if config.init and run_seed is None else {}),
        **provenance(device or config.device),
    }
    path = config.env_config_path
    if path and Path(path).resolve() != (folder / Path(path).name).resolve():
        with replacing(folder / Path(path).name) as temporary:
            shutil.copyfile(path, temporary)
    # The last of the two, since it names the other.
    write_json(folder / "config.json", content)


def copy_of_env_file(folder: Path, config: Config, advice: str = "") -> str:
    """The run's own copy of the environment's configuration file: its path, or "" where the environment has none.

    Args:
        folder: where config.json lies.
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


def extend(folders: Folders, config: Config, iteration: int) -> None:
    """Note in both config.json of a resumed run how long it is now to be and, where that has changed, what it is
    computed with; all else stays as it was written.

    Args:
        folders: claimed.
        iteration: the next one.
    """
    # Nothing is computed between the two writes: where a process ended there, the logs' is the one that counts.
    recorded = read_json(folders.logs / "config.json")
    entries = recorded.get("continued")
    if iteration < config.num_batches:
        entries = continued(recorded, iteration, config.device)
    extension = {"num_batches": config.num_batches} | ({"continued": entries} if entries else {})
    for folder in (folders.saves, folders.logs):
        path = folder / "config.json"
        content = read_json(path)
        if {name: content[name] for name in EXTENDED if name in content} != extension:
            write_json(path, {name: value for name, value in content.items() if name != "continued"} | extension)


def first_written(path: Path) -> dict[str, Any]:
    """A config.json as it was when the run began, without what `extend` changes."""
    return {name: value for name, value in read_json(path).items() if name not in EXTENDED}


def result_options(config: Config) -> dict[str, Any]:
    """What decides a run's result: the options that are not neutral, and the environment's file by its content."""
    options = {name: value for name, value in vars(config).items() if name not in NEUTRAL}
    if config.env_config_path:
        digest = sha256(config.env_config_path, "an environment's file")
        options["env_config_path"] = f"a file of SHA-256 {digest}"
    return options
