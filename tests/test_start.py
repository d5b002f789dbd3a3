"""How programs are started, and what they and their workers set for themselves; whoever imports the package keeps the
process as it was.
"""

import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from rl import start
from rl.start import CONSOLE_COMMANDS, THREAD_COUNTS
from tests.support.helpers import ROOT
from tests.support.malloc import mapped_alone

FRESH = {name: value for name, value in os.environ.items() if name not in THREAD_COUNTS}
IMPORTED = """
import contextlib, os
before = dict(os.environ)
import rl, rl.envs, rl.run.setup
from rl.policies import Architecture
from rl.sampling.worker_pool import WorkerSpec, WorkerPool
from tests.support.malloc import mapped_alone

if __name__ == "__main__":
    assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
    assert mapped_alone() is not False
    setting = WorkerSpec("tests.support.user_environments:Dull-v0", {}, Architecture(1, 1, False, 2, (4,)))
    with contextlib.closing(WorkerPool(setting, 1, 5)):
        assert dict(os.environ) == before
"""


def installed(program):
    """The console command of a program."""
    return [str(Path(sys.executable).with_name(CONSOLE_COMMANDS[program]))]


STARTED = {"as a module": lambda program: [sys.executable, "-m", f"rl.{program}"], "installed": installed}


# By its file: test_main.py; the other console commands: test_package.py.
@pytest.mark.parametrize("program, how", [("main", "as a module"), ("test", "installed")])
def test_all_ways_to_start_a_program_are_alike(tmp_path, program, how):
    """A module `test`, which a folder rl/ on the path would hide, is Python's own."""
    environment = FRESH | {"PYTHONPATH": str(ROOT)} if how == "as a module" else FRESH
    command = [*STARTED[how](program), "--no-such-option"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"{program}.py: ")


@pytest.mark.parametrize(
    "typed, module, expected, in_ranks",
    [
        ("rl/main.py", None, "python rl/test.py", "torchrun --standalone rl/test.py"),
        ("main.py", None, "python test.py", "torchrun --standalone test.py"),
        ("/rl/main.py", "rl.main", "python -m rl.test", "torchrun --standalone -m rl.test"),
        ("/bin/on path/nmcavia-train", None, "nmcavia-test", "torchrun --standalone --no-python nmcavia-test"),
        ("venv/nmcavia-plot", None, "venv/nmcavia-test", "torchrun --standalone --no-python venv/nmcavia-test"),
        ("/usr/bin/pytest", "pytest.__main__", "python test.py", "torchrun --standalone test.py"),
    ],
)
def test_commands_name_programs_as_the_user_typed_them(monkeypatch, typed, module, expected, in_ranks):
    monkeypatch.setattr("sys.argv", [typed])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", module and ModuleSpec(module, None))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/on path/{name}")
    assert " ".join(start.command("test")) == expected
    assert " ".join(start.command("test", "torchrun", "--standalone")) == in_ranks


def test_importing_the_package_and_starting_workers_change_nothing_in_the_process():
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, env=FRESH, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("asked", ["2", pytest.param(None, marks=pytest.mark.slow)])
def test_the_program_and_its_workers_compute_with_one_thread_and_keep_freed_memory(tmp_path, asked):
    """What the user asks of the libraries stays; torch has one thread even so."""
    command = [
        sys.executable, str(ROOT / "rl" / "main.py"), "--env-name", "tests.support.user_environments:Noting-v0",
        "--num-batches", "1", "--meta-batch-size", "2", "--fast-batch-size", "2",
        "--num-test-tasks", "2", "--test-batch-size", "2",
        "--num-test-steps", "1", "--hidden-size", "4", "--tasks-per-group", "1", "--num-workers", "2",
        "--logdir", str(tmp_path / "logs"), "--savedir", str(tmp_path / "saves"),
    ]  # fmt: skip
    environment = FRESH | {"NOTES": str(tmp_path)} | ({"OMP_NUM_THREADS": asked} if asked else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sum(not note["worker"] for note in notes) == 1 and len(notes) > 1
    expected = dict.fromkeys(THREAD_COUNTS, "1") | ({"OMP_NUM_THREADS": asked} if asked else {})
    for note in notes:
        assert {name: note[name] for name in THREAD_COUNTS} == expected
        assert note["torch"] == 1
        assert note["block"] is not True


@pytest.mark.skipif(mapped_alone() is None, reason="the C library tells nothing of its blocks")
def test_the_check_sees_the_difference():
    keep = "from rl import start; start.keep_freed_memory(); "
    look = "from tests.support.malloc import mapped_alone; print(mapped_alone())"
    for code, expected in ((look, "True"), (keep + look, "False")):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=FRESH, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


LEFT = """
import sys, threading, time
from rl import start
sys.modules["rl.left"] = type(sys)("rl.left")
sys.modules["rl.left"].main = lambda: print("done") or threading.Thread(target=time.sleep, args=(1000,)).start() or 3
import atexit
atexit.register(print, "tidied")
sys.exit(start.run("left"))
"""


def test_a_thread_that_users_code_has_left_keeps_no_program_alive():
    done = subprocess.run([sys.executable, "-c", LEFT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\ntidied\n", "")


@pytest.mark.parametrize("asked", ["", "INFO"])
def test_torch_logs_nothing_of_its_own_unless_asked(asked):
    """Nobody listens at port 9: torch alone would tell of that in dozens of lines."""
    connect = "import torch.distributed as d, datetime; wait = datetime.timedelta(seconds=1)\n" + (
        "try: d.TCPStore('127.0.0.1', 9, 2, False, timeout=wait)\nexcept d.DistNetworkError: pass"
    )
    program = f"from rl import start; start.keep_torch_quiet()\n{connect}"
    environment = {name: value for name, value in FRESH.items() if name != "TORCH_CPP_LOG_LEVEL"}
    environment |= {"TORCH_CPP_LOG_LEVEL": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("TCPStore" in done.stderr) if asked else done.stderr == ""
