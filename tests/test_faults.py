"""What happens to a run at a chosen moment: each test's run is a process of its own that sabotages itself."""

import contextlib
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.event_file_writer import EventsWriter

import rl.envs
from rl import checkpoint, sampler
from rl.build import Parts
from rl.errors import UserError
from rl.main import MAX_FLIGHT_RECORDS, MAX_REJECTED_IN_A_ROW, main
from rl.rollout import Phases, meta_rollout
from tests import conformance
from tests.helpers import random_params, small_policy
from tests.torture import PATIENCE, SHORT, damage_states, into, points, record, run_of

FEW = [*SHORT, "--num-batches", "3"]
NAVIGATION = [
    "--env-name", "2DNavigation-v0", "--meta-batch-size", "4", "--fast-batch-size", "3", "--test-batch-size", "4",
    "--num-test-steps", "1", "--hidden-size", "8", "--test-freq", "99", "--tasks-per-group", "2",
]  # fmt: skip
# An inner update so large that curvature products exceed float32.
DIVERGING = [*NAVIGATION, "--fast-lr", "1e15"]
# Every call by which a run changes what is on the disk.
WRITING = [
    (os, "replace"), (os, "fsync"), (os, "truncate"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_text"),
    (Path, "write_bytes"), (shutil, "copyfile"), (EventsWriter, "flush"),
]  # fmt: skip


class Here:
    """A sampler without workers."""

    def __init__(self, parts):
        self.parts = parts
        self.restarts = 0

    def sample(self, params, tasks, sampling, origin):
        size, (name, options, _) = self.parts.config.tasks_per_group, self.parts.setting
        groups = []
        for start in range(0, len(tasks), size):
            group = tasks[start : start + size]
            env = rl.envs.make(name, len(group) * sampling.num_episodes, **options)
            place = origin._replace(first_task=origin.first_task + start)
            groups.append(meta_rollout(env, self.parts.policy, params, group, sampling, place))
        return Phases.concatenate(groups)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def nothing():
    """No sabotage."""


def kill_at(count):
    """SIGKILL at the `count`-th call of `WRITING`: half of what it writes is written, or it is not begun."""
    left = count

    def sabotaged(call):
        def instead(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                if call.__name__ in ("write_bytes", "write_text"):
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return instead

    for owner, name in WRITING:
        setattr(owner, name, sabotaged(getattr(owner, name)))


def limit_files(size):
    """No file can grow beyond so many bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def live(line, output, sabotage, arguments):
    """The life of the process."""
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    Parts.sampler = Here
    sabotage(*arguments)
    sys.exit(main(line))


def run(folder, line, sabotage=nothing, *arguments):
    """Run main.py's main in a process of its own: (exit status, what it printed)."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rl.sampler"])
    output = folder / "output"
    process = context.Process(target=live, args=([*line, *into(folder)], output, sabotage, arguments))
    with sampler._importable():
        process.start()
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode, output.read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The record of `FEW`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder, FEW)[0] == 0
    return record(folder)


def killed_while_writing(folder, step):
    """Kill a run at the first call that writes, its successor at the (1 + step)-th, …, until one comes through.

    Returns:
        how often a run was killed
    """
    kills = 0
    while True:
        status, output = run(folder, [*FEW, "--resume", "auto"], kill_at, 1 + step * kills)
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, output
        kills += 1


def test_a_run_killed_at_many_moments_of_writing_ends_with_the_same_bytes(tmp_path, undisturbed):
    assert killed_while_writing(tmp_path, 4) > 5
    assert record(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_run_killed_at_every_moment_of_writing_ends_with_the_same_bytes(tmp_path, undisturbed):
    assert killed_while_writing(tmp_path, 1) > 20
    assert record(tmp_path) == undisturbed
    # The first run may have written one of two configurations only; all later moments are moments of one run.
    folders = list((tmp_path / "logs").glob("*/*/*"))
    assert sum((folder / "config.json").exists() for folder in folders) == 1
