"""What pip installs: the same packages as rl/requirements.txt names, every file of rl/, the console commands."""

import tomllib
from importlib import metadata
from pathlib import Path

from rl import start
from tests.support.helpers import ROOT

NAME = "neuromodulated-cavia"


def test_it_needs_what_the_requirements_say():
    lines = (ROOT / "rl" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(metadata.requires(NAME)) == sorted(line for line in lines if not line.startswith("#"))


def test_it_has_a_console_command_for_each_program():
    commands = {point.name: point.load() for point in metadata.distribution(NAME).entry_points}
    assert {name: program.args for name, program in commands.items()} == {
        name: (program,) for program, name in start.CONSOLE_COMMANDS.items()
    }


def test_it_has_every_file():
    """Modules in packages, and what pyproject.toml names besides."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = content["tool"]["setuptools"]["package-data"]["rl"]
    files = [path.relative_to(ROOT / "rl") for path in (ROOT / "rl").rglob("*") if path.is_file()]
    files = [path for path in files if path.parts[0] not in ("logs", "saves") and "__pycache__" not in path.parts]
    modules = [path for path in files if path.suffix == ".py"]
    assert all((ROOT / "rl" / path.parent / "__init__.py").is_file() for path in modules)
    others = set(files) - set(modules)
    assert others and all(any(path.match(pattern) for pattern in patterns) for path in others)
    assert Path("requirements.txt") in others
