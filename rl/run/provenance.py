"""What a run is made with: packages, code, processor and GPU. With others, numbers can differ."""

import contextlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rl.run import device as devices

_PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "mujoco", "metaworld", "scikit-image", "tensorboardX")
_CPUINFO = Path("/proc/cpuinfo")
_ROOT = Path(__file__).resolve().parents[2]


def provenance(device: str = "cpu") -> dict[str, Any]:
    """What config.json says of the run beside its options: `versions`, `git_commit`, `processor` and `gpu`.

    Args:
        device: `--device`.
    """
    return {"versions": versions(), "git_commit": git_commit(), "processor": processor(), "gpu": gpu(device)}


def changes(recorded: Mapping[str, Any], device: str = "cpu") -> Iterator[str]:
    """What is no longer as it was when a run began or, where that has changed since, was last continued: a line each.

    Args:
        recorded: what its config.json says, `provenance` of the beginning and `continued`; what the last of them lacks
            is taken to be the same.
        device: `--device` from now on.
    """
    then, verb = recorded, "began"
    if entries := _entries(recorded):
        then, verb = entries[-1], "was continued"
    before = then.get("versions")
    before = before if isinstance(before, dict) else {}
    now = provenance(device)
    for name, found in now["versions"].items():
        if before.get(name, found) != found:
            yield f"the run {verb} with {name} {before[name]}, this is {found}"
    if then.get("git_commit", now["git_commit"]) != now["git_commit"]:
        yield f"the run {verb} with commit {then['git_commit']} of this code, this is {now['git_commit']}"
    if then.get("processor", now["processor"]) != now["processor"]:
        yield f"the run {verb} on {then['processor']}, this is {now['processor']}"
    if then.get("gpu", now["gpu"]) != now["gpu"]:
        yield f"the run {verb} with its outer step on {_place(then['gpu'])}, this has it on {_place(now['gpu'])}"


def _place(gpu: str | None) -> str:
    return gpu or "the processor"


def continued(recorded: Mapping[str, Any], iteration: int, device: str = "cpu") -> list[dict[str, Any]]:
    """What config.json is to say, as `continued`, of a run that is resumed.

    Args:
        recorded: what it says so far.
        iteration: the first that is computed now.
        device: `--device` from now on.

    Returns:
        list of dicts, `provenance` and the first "iteration" computed with it; empty where nothing ever changed
    """
    # Nothing is left of what was computed from this iteration on.
    entries = [entry for entry in _entries(recorded) if entry["iteration"] < iteration]
    if any(changes(dict(recorded) | {"continued": entries}, device)):
        entries.append({"iteration": iteration, **provenance(device)})
    return entries


def _entries(recorded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The valid part of `continued`: people may have edited it."""
    entries = recorded.get("continued")
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("iteration"), int)]


def versions() -> dict[str, str]:
    """The versions of what decides numbers: name -> version, for the packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of this code, with '+' where the working tree differs; None outside of a checkout."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        described = _git("describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
    # Installed into an environment inside another project, the code lies in that one's checkout.
    return described if Path(top).resolve() == _ROOT else None


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_ROOT / "rl", capture_output=True, text=True, check=True)
    return done.stdout.strip()


def processor() -> str:
    """The processor's name, if the system gives it, and the instructions that PyTorch uses of it."""
    return f"{_processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


def gpu(device: str) -> str | None:
    """The name of the GPU that has the outer step; None where that is on the processor.

    Args:
        device: `--device`.
    """
    if devices.kind(device) == "cpu":
        return None
    # A GPU that cannot be used is an error where it is used.
    with contextlib.suppress(RuntimeError):
        return torch.cuda.get_device_name()
    return "a GPU"


def _processor_name() -> str:
    try:
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
