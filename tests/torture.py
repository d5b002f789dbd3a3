"""Real runs are killed, interrupted, starved and robbed of their workers at random moments, then resumed and compared.

    python -m tests.torture --minutes 20

Whatever happens, a run must end with the bytes of the undisturbed one. Prints how often what was done to how many runs.
"""

import argparse
import collections
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pandas
import torch

from rl.algorithm.trpo import TRPO, Options
from rl.errors import UserError
from rl.run.checkpoint import STATE, Counters, State, load_state, save_state
from tests.support.helpers import PATIENCE, ROOT, alive, becomes, random_params, small_policy

GRAPH = str(ROOT / "rl" / "envs" / "ctgraph" / "ctgraph_d2.json")
TINY = [
    "--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", GRAPH, "--meta-batch-size", "4",
    "--fast-batch-size", "3",
    "--num-test-tasks", "4", "--test-batch-size", "3", "--num-test-steps", "2", "--hidden-size", "8",
    "--tasks-per-group", "2", "--num-workers", "2",
]  # fmt: skip
SHORT = [*TINY, "--num-batches", "6", "--test-freq", "2", "--save-freq", "1"]
LONG = [*TINY, "--num-batches", "80", "--test-freq", "20", "--save-freq", "40", "--worker-timeout", "15"]
STATUSES = {number: (128 + number, -number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
# What depends on the machine and on what happened to it.
ACCIDENTAL = ("time/", "sampler/worker_restarts")


def into(folder):
    """Options that put a run below a folder."""
    return ["--logdir", str(folder / "logs"), "--savedir", str(folder / "saves")]


def run_of(folder):
    """The log folder and the policies' folder of the only run below `folder`; what was killed before it began is not
    one."""
    (config,) = (folder / "logs").glob("*/*/*/config.json")
    return config.parent, folder / "saves" / config.parent.relative_to(folder / "logs")


def progress(logs):
    """A run's progress.csv by pandas: a row an iteration, all of them once and in order."""
    table = pandas.read_csv(logs / "progress.csv", index_col="iteration")
    assert list(table.index) == list(range(len(table)))
    return table


def record(folder):
    """All that the run below a folder computed: the bytes of its policies, and of its metrics those that depend on
    nothing else, as they are written.
    """
    logs, saves = run_of(folder)
    policies = {path.name: path.read_bytes() for path in saves.glob("policy-*.pt")}
    assert policies and not [*logs.glob("*.tmp"), *saves.glob("*.tmp")]
    table = pandas.read_csv(logs / "progress.csv", dtype=str, keep_default_na=False)
    return policies, {tag: list(table[tag]) for tag in table if not tag.startswith(ACCIDENTAL)}


def command_of(pid):
    """A process's command line, for messages."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


class Program:
    """main.py as a process of its own, at the head of a process group.

    Args:
        folder: where its output is kept.
        line: its options.
        command: instead of `python main.py`, with all options.
        environment: further variables.
    """

    def __init__(self, folder, *line, command=None, **environment):
        self.marker = uuid.uuid4().hex
        self.paths = [folder / f"{self.marker}.{name}" for name in ("out", "err")]
        with self.paths[0].open("wb") as out, self.paths[1].open("wb") as err:
            self.process = subprocess.Popen(
                command or [sys.executable, "main.py", *line],
                cwd=ROOT / "rl",
                env=os.environ | {"MARKER": self.marker} | environment,
                start_new_session=True,
                stdout=out,
                stderr=err,
            )

    @property
    def output(self):
        """What it printed so far."""
        return self.paths[0].read_text()

    @property
    def errors(self):
        """What it complained of so far."""
        return self.paths[1].read_text()

    def until_lines(self, count):
        """Wait until that many lines are printed, or the end."""
        assert becomes(lambda: self.output.count("\n") >= count or self.process.poll() is not None)

    def finish(self):
        """Wait for the end, and for that of all its processes; its exit status."""
        try:
            status = self.process.wait(PATIENCE)
            # The fork server of the workers, caught importing, ends when it has imported.
            assert becomes(lambda: not alive(self.marker)), [command_of(pid) for pid in alive(self.marker)]
            return status
        finally:
            for pid in alive(self.marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def workers(self):
        """(process id of the fork server, those of its workers)"""
        parents = {}
        for pid in alive(self.marker):
            with contextlib.suppress(OSError):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        grandchildren = [pid for pid in parents if parents.get(parents[pid]) == self.process.pid]
        return (parents[grandchildren[0]], grandchildren) if grandchildren else (None, [])


def undisturbed(folder, line):
    """The `record` of a run that nothing happens to."""
    folder.mkdir()
    program = Program(folder, *line, *into(folder))
    assert program.finish() == 0, program.errors
    return record(folder)


def kill_parent(folder, rng, most):
    """Kill a run with SIGKILL, at most that often, and resume it until it is done; how often it was."""
    folder.mkdir()
    kills = 0
    while True:
        program = Program(folder, *SHORT, *into(folder), "--resume", "auto")
        if kills < most:
            program.until_lines(rng.integers(0, 7))
            time.sleep(rng.uniform(0, 0.2))
            program.process.kill()
        status = program.finish()
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, program.errors
        kills += 1


def interrupt(folder, rng, most):
    """Interrupt a run, at most that often, and resume it, by the command that it prints if it does, until it is done.

    Returns:
        (how often it was, the longest time that an interrupt took in seconds)
    """
    folder.mkdir()
    interrupts, longest, command = 0, 0.0, None
    while True:
        program = Program(folder, *SHORT, *into(folder), "--resume", "auto", command=command)
        begun = 0.0
        if interrupts < most:
            program.until_lines(rng.integers(0, 7))
            time.sleep(rng.uniform(0, 0.2))
            number = (signal.SIGINT, signal.SIGTERM)[rng.integers(2)]
            begun = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                (os.kill, os.killpg)[rng.integers(2)](program.process.pid, number)
        status = program.finish()
        if status == 0:
            return interrupts, longest
        interrupts, longest = interrupts + 1, max(longest, time.monotonic() - begun)
        # Before main.py has its say, Python itself has a traceback for Ctrl-C.
        if "init_import_site" not in program.errors:
            assert status in STATUSES[number], (status, program.errors)
            assert "Traceback" not in program.errors, program.errors
        advice = [line for line in program.errors.splitlines() if line.startswith("resume with: ")]
        if advice:
            (advice,) = advice
            command = [sys.executable, *shlex.split(advice.removeprefix("resume with: "))[1:]]
        # A run that has not begun, or is done, has none.
        assert advice or "\niteration " not in program.output or "\niteration 5:" in program.output, program.output


def attack_workers(folder, rng, most):
    """Kill or stop workers, and sometimes their fork server, at most that often; (how often, restarts counted)."""
    folder.mkdir()
    program = Program(folder, *LONG, *into(folder))
    program.until_lines(2)
    attacks = 0
    while attacks < most and program.process.poll() is None:
        time.sleep(rng.uniform(0, 0.1))
        server, workers = program.workers()
        if not workers:
            continue
        with contextlib.suppress(ProcessLookupError):
            if rng.random() < 0.1:
                os.kill(server, signal.SIGKILL)
            os.kill(int(rng.choice(workers)), (signal.SIGKILL, signal.SIGSTOP)[int(rng.random() < 0.1)])
            attacks += 1
        # One group may fail three times in a row only if its worker is attacked thrice: let it pass in between.
        program.until_lines(program.output.count("\n") + 2)
    assert program.finish() == 0, program.errors
    return attacks, int(progress(run_of(folder)[0])["sampler/worker_restarts"].iloc[-1])


def fill_disk(folder, rng):
    """Let a small disk fill up at some moment of a run, make room, resume it; None where no disk can be mounted."""
    folder.mkdir()
    disk = folder / "disk"
    disk.mkdir()
    size = f"size={rng.integers(8, 80)}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], capture_output=True).returncode:
        return None
    try:
        program = Program(folder, *SHORT, *into(disk), "--resume", "auto")
        status = program.finish()
        if status:
            (told,) = [line for line in program.errors.splitlines() if line.startswith("main.py: ")]
            assert status == 1 and "No space left" in told, program.errors
            assert "Traceback" not in program.errors and "Exception" not in program.errors, program.errors
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        program = Program(folder, *SHORT, *into(disk), "--resume", "auto")
        assert program.finish() == 0, program.errors
        return int(status != 0), record(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def damage_states(folder, rng, count):
    """Flip a bit or cut the end of a state, `count` times: it loads unharmed, or is refused in one line that names it.

    Returns:
        how often the damage was noticed
    """
    policy = small_policy()
    state = State(1, random_params(policy, dtype=torch.float32), Counters(no_update=2))
    noticed = 0
    for _ in range(count):
        save_state(folder, state)
        content = bytearray((folder / STATE).read_bytes())
        if rng.random() < 0.2:
            content = content[: rng.integers(len(content))]
        else:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (folder / STATE).write_bytes(content)
        try:
            loaded = load_state(folder, policy, TRPO(Options()))
        except UserError as error:
            assert str(folder / STATE) in str(error) and "\n" not in str(error)
            noticed += 1
            continue
        assert (loaded.iteration, loaded.counters) == (state.iteration, state.counters)
        assert all((loaded.params[name] == value).all() for name, value in state.params.items())
    return noticed


def main(line=None):
    """Go on for a while; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(line)
    rng = np.random.default_rng(options.seed)
    figures = collections.Counter()
    longest = 0.0
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        short, long = undisturbed(place / "short", SHORT), undisturbed(place / "long", LONG)
        number = 0
        while time.monotonic() < end:
            number += 1
            folders = [place / f"{number}{name}" for name in "abcde"]
            figures["parents killed"] += kill_parent(folders[0], rng, 8)
            assert record(folders[0]) == short
            count, seconds = interrupt(folders[1], rng, 5)
            figures["interrupts"] += count
            longest = max(longest, seconds)
            assert record(folders[1]) == short
            attacks, restarts = attack_workers(folders[2], rng, 20)
            figures["workers attacked"] += attacks
            figures["workers replaced"] += restarts
            assert record(folders[2]) == long
            filled = fill_disk(folders[3], rng)
            if filled:
                figures["disks filled"] += filled[0]
                assert filled[1] == short
            folders[4].mkdir()
            figures["states damaged"] += 200
            figures["damages noticed"] += damage_states(folders[4], rng, 200)
            figures["runs compared, all equal"] += 3 + bool(filled)
            print(f"{dict(figures)}, longest interrupt {longest:.1f} s", flush=True)


if __name__ == "__main__":
    main()
