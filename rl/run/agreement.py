"""What all ranks of a run must agree on before it begins."""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from rl.config import NEUTRAL, Config, flag_of
from rl.envs import adapter
from rl.errors import UserError
from rl.files import sha256
from rl.run.folders import Folders
from rl.run.provenance import processor, versions

PACKAGE = Path(__file__).resolve().parents[1]


def facts(
    config: Config, folders: Folders | None = None, device: str = "cpu", files: Mapping[str, Path | None] | None = None
) -> dict[str, str]:
    """Options that decide a result, the run to resume, files by their content, code and packages, and where the outer
    step is computed: name -> value. On another processor the same sums round otherwise, and ranks would drift apart.

    Args:
        files: others that are read, by what they are called; None where there is none.
    """
    found = {
        flag_of(field): str(getattr(config, field.name))
        for field in dataclasses.fields(Config)
        if field.name not in NEUTRAL
    }
    read = {"--env-config-path": Path(config.env_config_path) if config.env_config_path else None} | dict(files or {})
    found |= {name: f"a file of SHA-256 {sha256(path)[:12]}" for name, path in read.items() if path}
    code = [str(path.relative_to(PACKAGE)).encode() + path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))]
    found |= {
        "--device": device,
        "processor": processor(),
        "code of SHA-256": hashlib.sha256(b"".join(code)).hexdigest()[:12],
    } | versions()
    if folders:
        found["--resume"] = folders.logs.name
    return found | of_environment(config.env_name)


def of_environment(name: str) -> dict[str, str]:
    """A user's own environment by the content of its module."""
    module, colon, _ = name.partition(":")
    if not colon:
        return {}
    try:
        adapter.look_here()
        spec = importlib.util.find_spec(module)
        found = sha256(spec.origin)[:12] if spec and spec.origin else "none"
    except (ImportError, AttributeError, TypeError, ValueError, OSError, UserError):
        found = "none"
    return {f"{module} of SHA-256": found}
