"""Which Python `make` takes for its environment, by stand-ins that say they are of some version; what it starts."""

import os
import shlex
import subprocess
import sys
import tomllib

import pytest

from rl import machine
from tests.support.helpers import ROOT

STAND_IN = """#!/bin/sh
case "$1" in
-c) exec {python} -c "import sys; sys.version_info = {version}; $2" ;;
-m) mkdir -p "$3/bin" && echo "{name}" > "$3/made-by" && ln -s /bin/true "$3/bin/python" ;;
esac
"""


def make(folder, versions, *variables):
    """Make the environment in `folder` where there are commands of some versions: (finished `make`, who made it)."""
    commands = folder / "commands"
    commands.mkdir(parents=True)
    for name, version in versions.items():
        (commands / name).write_text(STAND_IN.format(python=sys.executable, version=version, name=name))
        (commands / name).chmod(0o755)
    for name in ("make", "sh", "touch", "mkdir", "ln"):
        (commands / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    target = folder / "venv" / "installed"
    done = subprocess.run(
        ["make", "-C", ROOT, f"VENV={target.parent}", *variables, target],
        env={"PATH": str(commands)}, capture_output=True, text=True,
    )  # fmt: skip
    made_by = target.parent / "made-by"
    return done, made_by.read_text().strip() if made_by.exists() else None


@pytest.mark.parametrize(
    "versions, expected",
    [
        ({"python3": (3, 12, 1), "python3.11": (3, 11, 0)}, "python3"),
        ({"python3": (3, 14, 0), "python3.11": (3, 11, 0), "python3.13": (3, 13, 0)}, "python3.11"),
        ({"python3": (3, 10, 9), "python3.13": (3, 13, 2)}, "python3.13"),
        ({"python3.12": (3, 12, 0)}, "python3.12"),
    ],
)
def test_the_first_suitable_python_is_taken(tmp_path, versions, expected):
    done, made_by = make(tmp_path, versions)
    assert (done.returncode, made_by) == (0, expected), done.stderr


def test_without_a_suitable_python_one_line_says_so(tmp_path):
    done, made_by = make(tmp_path, {"python3": (3, 14, 0), "python3.12": (2, 7, 18)})
    assert done.returncode != 0 and made_by is None
    told, of_make = done.stderr.splitlines()
    assert told == (
        "Python 3.11 to 3.13 is needed, and not found as python3 python3.11 python3.12 python3.13: "
        "name one by PYTHON=/path/to/python"
    )
    assert of_make.startswith("make: ***")


def test_a_python_that_is_named_is_checked_too(tmp_path):
    versions = {"python3": (3, 12, 0), "other": (3, 13, 0), "newer": (3, 14, 0)}
    assert make(tmp_path / "1", versions, "PYTHON=other")[1] == "other"
    done, made_by = make(tmp_path / "2", versions, "PYTHON=newer")
    assert made_by is None and "not found as newer:" in done.stderr


def test_a_folder_with_a_space_in_its_name_and_what_results_may_use(tmp_path):
    folder = tmp_path / "a folder"
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    (folder / "rl").symlink_to(ROOT / "rl")
    for path in ("Makefile", "pyproject.toml", "tests/requirements.txt", "studies/requirements.txt"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes((ROOT / path).read_bytes())

    def run_make(*words):
        # `nproc` would say 1 here.
        variables = os.environ | {"OMP_NUM_THREADS": "1", "CORES": ""}
        return subprocess.check_output(["make", *words], cwd=folder, env=variables, text=True)

    targets = ["demo", "test", "test-slow", "test-portable", "torture", "lint", "bench", "bench-cuda", "results"]
    told = run_make("-n", *targets).replace("\\\n", " ")
    words = [word for word in shlex.split(told) if "folder/.venv/bin/" in word]
    assert len(words) > len(targets) and all(f"{commands}/" in word for word in words)

    # The environment is there; what is asked of snakemake is shown, with the limits of this process.
    for name in ("installed", "studies-installed"):
        (folder / ".venv" / name).touch()
    (commands / "python").symlink_to(sys.executable)
    (commands / "snakemake").write_text('#!/bin/sh\necho "$@"\n')
    (commands / "snakemake").chmod(0o755)
    memory = f"--resources mem_mb={machine.memory() // 10**6} "
    assert f"--cores {machine.cores()} {memory}" in run_make("-s", "results")
    assert f"--cores 7 {memory}" in run_make("-s", "results", "CORES=7")


def test_all_say_the_same_versions():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert declared == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()
    assert "Python 3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "Python 3.11 to 3.13" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
