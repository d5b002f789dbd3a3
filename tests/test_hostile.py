"""The programs in hostile surroundings: one line of complaint, no traceback, no hang."""

import os
import shlex
import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT, only_run
from tests.tiny_runs import SMALL

PROGRAMS = pytest.mark.parametrize("program", ["main.py", "test.py", "plot.py"])
PATIENCE = 120  # s; bounds a hang, decides nothing else


def python(program, *line):
    """A shell's command that runs a program."""
    return shlex.join([sys.executable, str(ROOT / "rl" / program), *map(str, line)])


def shell(command, folder, stdout=subprocess.PIPE, **environment):
    """Run a command of bash in a folder."""
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | environment, timeout=PATIENCE,
        stdout=stdout, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def unread():
    """A pipe that nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


def complaint(done):
    """The last line of complaint of a process; what came before it is at most advice how to resume."""
    lines = done.stderr.decode().splitlines()
    assert "Traceback" not in done.stderr.decode() and len(lines) in (1, 2), done.stderr.decode()
    assert len(lines) == 1 or lines[0].startswith("resume with: ")
    return lines[-1]


def into(folder):
    return ["--logdir", folder / "logs", "--savedir", folder / "saves"]


def evaluation(tiny, name="navigation"):
    """The words of a command line of test.py."""
    run = tiny.run(name)
    return run / "config.json", only_run(tiny.folder / name / "saves") / "policy-1.pt", "--num-workers", "1"


PRINTS = r"""
import sys
sys.path.append(sys.argv[1])
from rl import interrupts, start
start.program()
sys.exit(interrupts.exit_status("prints", lambda _: print("±φ → \udcff×") or 0))
"""


def prints(redirected, folder, stdout=subprocess.PIPE, **environment):
    """What becomes of a program that prints a line: (exit status, standard output, standard error)."""
    line = shlex.join([sys.executable, "-c", PRINTS, str(ROOT)])
    done = shell(f"{line} {redirected}", folder, stdout, **environment)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(
    "encoding, told", [("ascii", "+-phi -> \\udcffx"), ("latin-1", "±phi -> \\udcff×"), ("utf-8", "±φ → \\udcff×")]
)
def test_what_an_encoding_lacks_is_written_in_its_letters(tmp_path, encoding, told):
    assert prints("", tmp_path, PYTHONIOENCODING=encoding) == (0, f"{told}\n".encode(encoding), "")
    assert prints(">&-", tmp_path, PYTHONIOENCODING=encoding) == (0, b"", "")


def test_output_that_cannot_be_written_is_an_error_in_one_line(tmp_path, unread):
    assert prints("", tmp_path, unread) == (1, None, "prints: standard output: Broken pipe\n")
    assert prints("2>&1", tmp_path, unread) == (1, None, "")
    full = "prints: standard output: No space left on device\n"
    assert prints(">/dev/full", tmp_path) == (1, b"", full)
    assert prints(">/dev/full 2>&1", tmp_path) == (1, b"", "")


def test_the_programs_print_in_ascii(tiny, tmp_path):
    train = python("main.py", *SMALL, "--num-batches", "1", *into(tmp_path))
    test = python("test.py", *evaluation(tiny), "--activations", "0", "--logdir", tmp_path / "evaluations")
    draw = python("plot.py", "adaptation", tmp_path / "evaluations/*/*/*").replace("'", "")
    done = shell(f"{train} && {test} && {draw}", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    told = done.stdout.decode("ascii")
    assert all(words in told for words in ("after 0, 1, 2, ... updates", "tasks x 3 episodes", "written: "))


def test_help_that_nobody_reads(tmp_path, unread):
    done = shell(python("plot.py", "--help"), tmp_path, unread, PYTHONUNBUFFERED="")
    assert (done.returncode, complaint(done)) == (1, "plot.py: standard output: Broken pipe")


def test_a_run_with_a_closed_standard_output_goes_on(tmp_path):
    done = shell(f"{python('main.py', *SMALL, '--num-batches', '1', *into(tmp_path))} >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (only_run(tmp_path / "saves") / "policy-0.pt").is_file()


def test_a_run_whose_output_nobody_reads_any_more_can_be_resumed(tmp_path, unread):
    done = shell(python("main.py", *SMALL, "--num-batches", "99999", *into(tmp_path)), tmp_path, unread)
    assert done.returncode == 1
    assert complaint(done) == "main.py: standard output: Broken pipe"
    assert (only_run(tmp_path / "saves") / "state.pt").is_file()


@PROGRAMS
def test_ctrl_c_while_python_imports_leaves_no_word(tmp_path, program):
    # The first thing that is imported and not Python's own interrupts the process, as Ctrl-C could at that moment.
    (tmp_path / "dataclasses.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = shell(f"exec {python(program)}", tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_run_whose_terminal_is_closed_can_be_resumed(tmp_path):
    """As a terminal does: SIGHUP to all processes of the group, and nowhere to write to."""
    line = [sys.executable, str(ROOT / "rl" / "main.py"), *SMALL, "--num-batches", "99999", *map(str, into(tmp_path))]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        try:
            while "iteration 1:" not in process.stdout.readline():
                pass
            process.stderr.close()
            process.stdout.close()
            os.killpg(process.pid, signal.SIGHUP)
            assert process.wait(PATIENCE) == 129
        finally:
            process.kill()
    assert (only_run(tmp_path / "saves") / "state.pt").is_file()
