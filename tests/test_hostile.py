"""The programs in hostile surroundings: one line of complaint, no traceback, no hang."""

import io
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl import main, plot, start, test
from rl.errors import UserError
from rl.run import interrupts
from tests.support import tiny_runs
from tests.support.forked import Forked
from tests.support.helpers import ROOT, only_run

PROGRAMS = pytest.mark.parametrize("program", ["main.py", "test.py", "plot.py"])
SMALL = [*tiny_runs.SMALL, "--neuromodulation"]
PATIENCE = 300  # s; bounds a hang, decides nothing else


@pytest.fixture(autouse=True)
def patience():
    """A test that hangs fails."""

    def give_up(*_):
        raise TimeoutError(f"no end within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def into(folder):
    return ["--logdir", folder / "logs", "--savedir", folder / "saves"]


def evaluation(tiny, name="navigation"):
    """The words of a command line of test.py."""
    run = tiny.run(name)
    return run / "config.json", only_run(tiny.folder / name / "saves") / "policy-1.pt", "--num-workers", "1"


def redirected(stdout, stderr, encoding, program="", *line):
    """What a process does whose standard streams are closed, full, unread or else left alone: it runs a program, or
    prints a line as programs do.
    """
    for number, kind in ((1, stdout), (2, stderr)):
        if kind == "closed":
            os.close(number)
        elif kind == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        elif kind == "unread":
            reads, writes = os.pipe()
            os.close(reads)
            os.dup2(writes, number)
    sys.stdout = None if stdout == "closed" else open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, closefd=False)  # noqa: SIM115
    start.open_streams()
    if program:
        return {"main": main.program, "plot": plot.main}[program](list(line))
    return interrupts.exit_status("prints", lambda _: print("±φ → \udcff×") or 0)


def prints(folder, *given):
    """What becomes of it: (exit status, standard output, standard error without advice how to resume)."""
    program = Forked(folder, given, redirected)
    status = program.finish()
    lines = program.errors.splitlines(keepends=True)
    return status, program.paths[0].read_bytes(), "".join(line for line in lines if not line.startswith("resume with"))


@pytest.mark.parametrize(
    "encoding, told",
    [("ascii", r"\xb1\u03c6 \u2192 \udcff\xd7"), ("latin-1", r"±\u03c6 \u2192 \udcff×"), ("utf-8", r"±φ → \udcff×")],
)
def test_what_an_encoding_lacks_is_escaped(tmp_path, encoding, told):
    assert prints(tmp_path, "", "", encoding) == (0, f"{told}\n".encode(encoding), "")
    assert prints(tmp_path, "closed", "", encoding) == (0, b"", "")


@pytest.mark.parametrize("kind, told", [("unread", "Broken pipe"), ("full", "No space left on device")])
def test_output_that_cannot_be_written_is_an_error_in_one_line(tmp_path, kind, told):
    assert prints(tmp_path, kind, "", "utf-8") == (1, b"", f"prints: standard output: {told}\n")
    assert prints(tmp_path, kind, kind, "utf-8") == (1, b"", "")
    assert prints(tmp_path, kind, "", "utf-8", "plot", "--help") == (1, b"", f"plot.py: standard output: {told}\n")


def test_a_run_with_a_closed_standard_output_goes_on(tmp_path):
    line = (*SMALL, "--num-batches", "1", *into(tmp_path))
    assert prints(tmp_path, "closed", "", "utf-8", "main", *line) == (0, b"", "")
    assert (only_run(tmp_path / "saves") / "policy-0.pt").is_file()


def test_a_run_whose_output_nobody_reads_any_more_can_be_resumed(tmp_path):
    line = (*SMALL, "--num-batches", "99999", *into(tmp_path))
    assert prints(tmp_path, "unread", "", "utf-8", "main", *line) == (1, b"", "main.py: standard output: Broken pipe\n")
    assert (only_run(tmp_path / "saves") / "state.pt").is_file()


@PROGRAMS
def test_ctrl_c_while_python_imports_leaves_no_word(tmp_path, program):
    # The first thing that is imported and not Python's own interrupts the process, as Ctrl-C could at that moment.
    (tmp_path / "dataclasses.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    line = [sys.executable, ROOT / "rl" / program]
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def damaged(path, kind):
    """Make a file into what a disk, a copy or a mistake can make of it."""
    content = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 2**40)
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        # In the middle of the largest part of an archive, where only its checksum tells.
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(b"\x93NUMPY\x01\0" + kind.encode())


def told(capsys, program):
    """The one line on standard error."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{program}: ")
    return line


KINDS = ("pipe", "folder", "loop", "sparse", "cut", "no such thing")
HANDED_OVER = [
    *((name, kind) for name in ("config.json", "policy-1.pt", "probe.npz") for kind in KINDS),
    ("policy-1.pt", "flipped"), ("probe.npz", "flipped"),
]  # fmt: skip


@pytest.mark.parametrize("name, kind", HANDED_OVER)
def test_what_is_handed_to_test_py(tiny, tmp_path, capsys, name, kind):
    config, policy, *_ = evaluation(tiny)
    probe = tiny.evaluation("navigation") / "probe.npz"
    for path in (config, policy, probe):
        shutil.copy(path, tmp_path)
    damaged(tmp_path / name, kind)
    capsys.readouterr()
    line = [tmp_path / "config.json", tmp_path / "policy-1.pt", "--probe", tmp_path, "--logdir", tmp_path / "logs"]
    assert test.main(list(map(str, line))) == 2
    assert str(tmp_path / name) in told(capsys, "test.py") or name == "probe.npz"
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_handed_to_plot_py(tiny, tmp_path, capsys, kind):
    for command, names in {
        "adaptation": ("config.json", "results.json", "rewards.npy"),
        "trajectories": ("tasks.json", "episodes.npz"),
        "gates": ("probe.npz",),
    }.items():
        for name in names:
            folder = tmp_path / name
            shutil.copytree(tiny.evaluation("navigation"), folder)
            damaged(folder / name, kind)
            capsys.readouterr()
            assert plot.main([command, str(folder), "--output", str(tmp_path / "picture")]) == 2
            assert str(folder) in told(capsys, "plot.py")


def test_a_flipped_bit_in_what_plot_py_reads(tiny, tmp_path, capsys):
    for command, name in (("trajectories", "episodes.npz"), ("representation", "probe.npz")):
        folder = tmp_path / name
        shutil.copytree(tiny.evaluation("navigation"), folder)
        damaged(folder / name, "flipped")
        capsys.readouterr()
        assert plot.main([command, str(folder)]) == 2
        assert f"{folder / name}: expected a record of test.py: it is damaged" in told(capsys, "plot.py")


@pytest.mark.parametrize("kind", ["pipe", "sparse", "loop", "folder", "no such thing"])
def test_the_progress_of_a_run(tiny, tmp_path, capsys, kind):
    run = tmp_path / "run"
    shutil.copytree(tiny.run("navigation"), run)
    damaged(run / "progress.csv", kind)
    capsys.readouterr()
    assert plot.main(["curves", str(run), "--output", str(tmp_path / "picture")]) == 2
    assert str(run) in told(capsys, "plot.py")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", ["pipe", "sparse", "loop"])
def test_what_is_handed_to_main_py(tiny, tmp_path, capsys, kind):
    shutil.copytree(tiny.run("navigation"), tmp_path / "run")
    damaged(tmp_path / "run" / "config.json", kind)
    capsys.readouterr()
    assert main.program(["--resume", str(tmp_path / "run")]) == 2
    assert str(tmp_path / "run" / "config.json") in told(capsys, "main.py")
    file = tmp_path / "graph.json"
    file.touch()
    damaged(file, kind)
    assert main.program(["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", str(file)]) == 2
    assert str(file) in told(capsys, "main.py")


@pytest.mark.parametrize("number", [math.nan, -math.inf])
def test_numbers_that_are_not_finite(tiny, tmp_path, capsys, number):
    config, policy, *_ = evaluation(tiny)
    params = torch.load(policy, weights_only=True)
    params["layer2.std.weight"][3, 4] = number
    torch.save(params, tmp_path / "policy.pt")
    capsys.readouterr()
    assert test.main([str(config), str(tmp_path / "policy.pt"), "--logdir", str(tmp_path / "logs")]) == 2
    assert told(capsys, "test.py").endswith("policy.pt: layer2.std.weight: expected finite numbers, found others")
    folder = tmp_path / "evaluation"
    shutil.copytree(tiny.evaluation("navigation"), folder)
    rewards = np.load(folder / "rewards.npy")
    rewards[0, 1] = number
    np.save(folder / "rewards.npy", rewards)
    assert plot.main(["adaptation", str(folder)]) == 2
    assert told(capsys, "plot.py").endswith(
        "rewards.npy: expected the rewards of an evaluation, found numbers that are not finite"
    )


@pytest.mark.parametrize(
    "other", [torch.Tensor.to_sparse, lambda value: value.to("meta"), lambda value: value.to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)  # fmt: skip
def test_tensors_of_other_kinds(tiny, tmp_path, capsys, other):
    config, policy, *_ = evaluation(tiny)
    torch.save({name: other(value) for name, value in torch.load(policy).items()}, tmp_path / "policy.pt")
    capsys.readouterr()
    assert test.main([str(config), str(tmp_path / "policy.pt"), "--logdir", str(tmp_path / "logs")]) == 2
    assert "expected a dense tensor of real numbers" in told(capsys, "test.py")


def test_memory_that_is_not_there(capsys):
    def run(_):
        np.empty(2**62, np.uint8)

    assert interrupts.exit_status("main.py", run) == 1
    assert told(capsys, "main.py").startswith("main.py: not enough memory: Unable to allocate")

    def compute(_):
        torch.empty(2**60, dtype=torch.uint8)

    assert interrupts.exit_status("main.py", compute) == 1
    assert told(capsys, "main.py") == "main.py: not enough memory for what PyTorch computes on the CPU"
    # In the middle of a run there is something that may help.
    with pytest.raises(RuntimeError) as caught:
        compute(None)
    assert "a smaller --learner-memory, fewer --learner-threads or" in str(interrupts.as_run_error(caught.value))


def test_a_path_of_two_lines_makes_one(tmp_path, capsys):
    folder = tmp_path / "two\nlines"
    assert plot.main(["curves", str(folder)]) == 2
    assert r"two\nlines: expected a training run's log folder" in told(capsys, "plot.py")
    folder.touch()
    assert main.program([*SMALL, *map(str, into(folder))]) == 1
    assert r"two\nlines" in told(capsys, "main.py")


@pytest.mark.parametrize("option", ["--logdir", "--savedir"])
def test_a_loop_of_links_as_folder(tmp_path, capsys, option):
    (tmp_path / "loop").symlink_to("loop")
    line = [*SMALL, *map(str, into(tmp_path)), option, str(tmp_path / "loop")]
    assert main.program(line) == 1
    assert "loop" in (line := told(capsys, "main.py")) and line.endswith("Too many levels of symbolic links")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_too_few_open_files(tmp_path):
    few = (resource.setrlimit, resource.RLIMIT_NOFILE, (16, 16))
    program = Forked(tmp_path / "output", ["--num-workers", 4, *into(tmp_path)], sabotage=few)
    assert program.finish() == 2
    assert re.fullmatch(r"main.py: --num-workers 4: \d+ open files .*, this process may have 16;.*\n", program.errors)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


@pytest.mark.slow
def test_as_many_open_files_as_a_run_needs(tmp_path):
    # The soft limit may be raised.
    few = (resource.setrlimit, resource.RLIMIT_NOFILE, (16, 64))
    line = [*SMALL, "--num-batches", 1, "--num-workers", 2, *into(tmp_path)]
    program = Forked(tmp_path, line, sabotage=few)
    assert (program.finish(), program.errors) == (0, "")


def test_names_that_are_no_unicode(tmp_path, monkeypatch):
    """Of every file and folder that an option names, in titles and legends, too."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), errors="backslashreplace"))  # as programs have it
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    place.mkdir()
    monkeypatch.chdir(place)
    graph, policy, tasks, name = (os.fsdecode(word) for word in (b"d\xff.json", b"p\xff.pt", b"t\xff.json", b"x\xff"))
    shutil.copy(ROOT / "rl/envs/ctgraph/ctgraph_d2.json", graph)
    Path(tasks).write_text('[{"leaf": 0}, {"leaf": 1}]')
    line = [*SMALL, "--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", graph, "--neuromodulation",
            "--num-batches", "1", "--num-workers", "0", "--savedir", name]  # fmt: skip
    runs = [main.main([*line, "--logdir", name, "--expname", name])]
    shutil.copy(next(Path(name).glob("*/*/*/policy-0.pt")), policy)
    runs += [main.main([*line, "--logdir", name, "--init", policy])]
    assert main.main(["--resume", str(runs[0]), "--num-batches", "2"]) == runs[0]
    evaluate = [str(runs[0] / "config.json"), policy, "--tasks", tasks, "--env-config-path", graph, "--expname", name]
    assert test.main([*evaluate, "--logdir", name + "2"]) == 0
    (evaluation,) = Path(name + "2").glob("*/*/*")
    for draw in (["curves", *map(str, runs), "--group-by", "expname"], ["representation", str(evaluation)]):
        assert plot.main([*draw, "--output", name + draw[0]]) == 0
        assert Path(f"{name}{draw[0]}.png").is_file()
    assert "\\udcff" in Path(f"{name}curves.csv").read_text()
    with pytest.raises(UserError, match="--init: x\udcff: expected"):
        main.main([*line, "--init", name])
