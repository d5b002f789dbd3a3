"""Files of a run: policies, configurations, folders. Everything is written whole or not at all."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import torch

from rl.errors import UserError

_PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "mujoco", "metaworld", "scikit-image", "tensorboardX")


class Folders:
    """Where a run keeps its logs and its policies; made when asked for, never shared by two runs.

    Args:
        config: `Config`.
        suffix: appended to the method's folder (`_test` for evaluations).

    Raises:
        UserError: a folder cannot be made.
    """

    def __init__(self, config, suffix=""):
        group = Path(config.env_name.replace(":", "_").replace("/", "_"), config.method + suffix)
        name = run_name(config, datetime.now())
        for attempt in range(1, 1000):
            run = group / (name if attempt == 1 else f"{name}-{attempt}")
            self.logs, self.saves = Path(config.logdir) / run, Path(config.savedir) / run
            wanted = [self.logs] if suffix else dict.fromkeys([self.logs.resolve(), self.saves.resolve()])
            made = []
            try:
                for folder in wanted:
                    folder.mkdir(parents=True)
                    made.append(folder)
                return
            except OSError as error:
                for folder in made:
                    folder.rmdir()
                if not isinstance(error, FileExistsError):
                    raise UserError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from None

    def policy(self, iteration):
        """The file of the policy after an iteration."""
        return self.saves / f"policy-{iteration}.pt"


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
    write_text(folder / "config.json", json.dumps(content, indent=2) + "\n")
    if env_config_path:
        shutil.copy(env_config_path, folder / Path(env_config_path).name)


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


def write_text(path, text):
    """Write a file under another name, then rename it: readers see the old file or the new one."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def save_policy(path, params):
    """Save θ as a state dict with the published names."""
    temporary = Path(f"{path}.tmp")
    torch.save({name: value.detach().cpu() for name, value in params.items()}, temporary)
    os.replace(temporary, path)


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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: expected a policy's state dict: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors), found a {type(content).__name__}")
    expected = policy.shapes
    found = {name: tuple(value.shape) for name, value in content.items()}
    differences = [
        f"{name}: expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - 4} more)" if len(differences) > 4 else ""
        raise UserError(f"{path}: does not fit the configuration: {'; '.join(differences[:4])}{more}")
    return {name: content[name].to(torch.float32) for name in expected}


def _shape(shape):
    return "nothing" if shape is None else "×".join(map(str, shape)) or "a number"
