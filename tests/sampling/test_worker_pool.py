import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from contextlib import closing, suppress

import numpy as np
import pytest
import torch

import rl.envs
from rl.policies import Architecture, make_policy
from rl.sampling import processes
from rl.sampling.in_process import InProcessSampler
from rl.sampling.jobs import MOST_TASKS, WorkerError, WorkerSpec, split
from rl.sampling.worker_pool import MAX_ATTEMPTS, WorkerPool
from tests.support.helpers import ROOT, alive, becomes, random_params
from tests.support.in_process import OBSTINATE, ORIGIN, PARAMS, SAMPLING, assert_same_rollouts

NAVIGATION = WorkerSpec("2DNavigation-v0", {}, Architecture(2, 2, False, 2, (6,)))


def sampler(num_workers=2, tasks_per_group=1):
    return WorkerPool(OBSTINATE, num_workers, tasks_per_group)


def without_workers(tasks):
    """What `sampler` should give."""
    return InProcessSampler(OBSTINATE, tasks_per_group=1).sample(PARAMS, tasks, SAMPLING, ORIGIN)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_number_of_workers_changes_no_bit(num_workers):
    params = random_params(make_policy(NAVIGATION.architecture), dtype=torch.float32)
    tasks = rl.envs.make("2DNavigation-v0", 1).sample_tasks(7, "train", np.random.default_rng(0))
    # Groups of 3, 3 and 1 tasks.
    expected = InProcessSampler(NAVIGATION, tasks_per_group=3).sample(params, tasks, SAMPLING, ORIGIN)
    with closing(WorkerPool(NAVIGATION, num_workers, tasks_per_group=3)) as pool:
        assert_same_rollouts(pool.sample(params, tasks, SAMPLING, ORIGIN), expected)
        # The same workers again: nothing is left over from the first time.
        assert_same_rollouts(pool.sample(params, tasks, SAMPLING, ORIGIN), expected)
        assert pool.restarts == 0


def test_sampling_in_the_process_itself_closes_its_environments(monkeypatch):
    """Even where one cannot be closed."""
    closed, inside = [], InProcessSampler(OBSTINATE, tasks_per_group=2)
    for count in (3, 1):
        inside.sample(PARAMS, [{}] * count, SAMPLING, ORIGIN)

    def close(env):
        closed.append(env.num_envs)
        raise RuntimeError("stuck")

    (kind,) = {type(env) for env in inside.runner.environments.values()}
    monkeypatch.setattr(kind, "close", close)
    inside.close()
    assert len(closed) == len(set(closed)) > 1 and not inside.runner.environments


def test_sampling_in_the_process_itself_leaves_its_threads_alone():
    """Their number changes no bit, and is the program's own afterwards, also where the environment fails."""
    reference = without_workers([{}, {}])
    torch.set_num_threads(2)
    assert_same_rollouts(without_workers([{}, {}]), reference)
    with pytest.raises(WorkerError, match="ArithmeticError: no more"):
        without_workers([{"raises": "no more"}])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "num_tasks, group_size, num_workers, sizes",
    [
        (40, 5, 4, [10] * 4), (45, 5, 4, [15] * 3), (20, 5, 4, [5] * 4), (15, 5, 4, [5] * 3), (5, 5, 1, [5]),
        (40, 5, 2, [20] * 2), (40, 5, 1, [20] * 2), (45, 5, 1, [15] * 3), (100, 5, 4, [15] * 6 + [10]),
        (40, 2, 2, [20] * 2), (40, 1, 16, [3] * 13 + [1]), (40, 2, 20, [2] * 20), (7, 3, 2, [6, 1]),
        (60, 30, 2, [30] * 2),
    ],
)  # fmt: skip
def test_groups_are_dealt_in_few_equal_rounds(num_tasks, group_size, num_workers, sizes):
    """Jobs of whole groups and at most 20 tasks, unless a group has more; each names the streams of its own tasks."""
    tasks = [{"number": number} for number in range(num_tasks)]
    jobs = list(split(PARAMS, tasks, SAMPLING, ORIGIN._replace(first_task=3), group_size, num_workers))
    assert [len(job.tasks) for job in jobs] == sizes and max(sizes) <= max(MOST_TASKS, group_size)
    assert [job.num_groups for job in jobs] == [math.ceil(size / group_size) for size in sizes]
    assert [task for job in jobs for task in job.tasks] == tasks
    assert [job.stream.first_task for job in jobs] == [3 + job.tasks[0]["number"] for job in jobs]


def test_a_worker_that_is_killed_is_replaced_and_its_group_computed_again(tmp_path):
    tasks = [{}, {"dies": str(tmp_path / "deaths"), "times": MAX_ATTEMPTS - 1}, {}]
    with closing(sampler()) as pool:
        rollouts = pool.sample(PARAMS, tasks, SAMPLING, ORIGIN)
        assert pool.restarts == MAX_ATTEMPTS - 1
        assert len(multiprocessing.active_children()) == 2
        # The pool is whole again.
        assert_same_rollouts(pool.sample(PARAMS, tasks, SAMPLING, ORIGIN), rollouts)
        assert pool.restarts == MAX_ATTEMPTS - 1
    # The tasks differ in nothing that the rewards depend on.
    assert_same_rollouts(rollouts, without_workers([{}, {}, {}]))


@pytest.mark.parametrize(
    "how, told",
    [
        ({}, r"was killed \(SIGKILL; out of memory\?\)"),
        ({"by": signal.SIGSEGV}, r"was ended by signal 11 \(Segmentation fault\)"),
        ({"status": 3}, r"ended by itself with exit code 3"),
    ],
)
def test_a_group_that_kills_every_worker_is_an_error(tmp_path, how, told):
    tasks = [{}, {"dies": str(tmp_path / "deaths"), "times": 99} | how]
    with closing(sampler()) as pool:
        with pytest.raises(WorkerError, match=rf"failed in 3 workers; the last one {told}$"):
            pool.sample(PARAMS, tasks, SAMPLING, ORIGIN)
        # Others can be computed all the same.
        assert_same_rollouts(pool.sample(PARAMS, tasks[:1], SAMPLING, ORIGIN), without_workers(tasks[:1]))
    assert (tmp_path / "deaths").stat().st_size == MAX_ATTEMPTS == 3


def test_an_exception_arrives_with_the_workers_traceback():
    with closing(sampler()) as pool, pytest.raises(WorkerError) as caught:
        pool.sample(PARAMS, [{}, {"raises": "no more"}], SAMPLING, ORIGIN)
    text = str(caught.value)
    # Of the second task, the first episode in its first step.
    place = f"task 1, episode 0, step 0, iteration {ORIGIN.iteration}"
    assert text.splitlines()[0] == f"{OBSTINATE.env_name}: ArithmeticError: no more ({place})"
    assert "Traceback" in text and "broken_env.py" in text and 'raise ArithmeticError(self.task["raises"])' in text


@pytest.mark.parametrize(
    "name, task, complaint",
    [
        ("Untrue", {"gives": ["reward", None]},
         "reward: expected float64 of shape (), got NoneType (task 1, episode 0, step 0, iteration 0)"),
        ("Untrue", {"gives": ["first observation", [0, 0]]},
         "observation: expected float32 of shape (1,), got int64 of shape (2,) (task 1, episode 0, iteration 0)"),
        ("Lonely", {"goal": [0.0, 0.0]}, "observations after the reset: expected float32 of shape (4, 2), "
         "got float32 of shape (2,) (tasks from 0, iteration 0)"),
    ],
)  # fmt: skip
def test_what_is_not_as_declared_is_told_in_one_line(name, task, complaint):
    name = f"tests.support.user_environments:{name}-v0"
    env = rl.envs.make(name, 1)
    architecture = Architecture(env.single_observation_space.shape[0], env.single_action_space.shape[0], False, 2, (6,))
    params = random_params(make_policy(architecture), dtype=torch.float32)
    first = {} if "gives" in task else task
    with closing(WorkerPool(WorkerSpec(name, {}, architecture), 1, 2)) as pool, pytest.raises(WorkerError) as caught:
        pool.sample(params, [first, task], SAMPLING, ORIGIN)
    assert str(caught.value) == f"{name}: {complaint}"


def test_after_an_exception_the_pool_computes_what_it_is_asked_for():
    with closing(sampler()) as pool:
        for _ in range(3):
            # The other worker's result of this sample must not be taken for one of the next.
            with pytest.raises(WorkerError):
                pool.sample(PARAMS, [{"raises": "no more"}, {}], SAMPLING, ORIGIN)
            tasks = [{}, {}, {}]
            found = pool.sample(PARAMS, tasks, SAMPLING, ORIGIN._replace(iteration=9))
            with closing(sampler(1)) as fresh:
                assert_same_rollouts(found, fresh.sample(PARAMS, tasks, SAMPLING, ORIGIN._replace(iteration=9)))


def test_no_worker_outlives_the_pool():
    pool = sampler(3)
    workers = multiprocessing.active_children()
    assert len(workers) == 3
    pool.close()
    assert multiprocessing.active_children() == []
    assert not any(os.path.exists(f"/proc/{worker.pid}") for worker in workers)


def test_workers_close_their_environments(tmp_path):
    path = tmp_path / "closed"
    with closing(sampler(1)) as pool:
        pool.sample(PARAMS, [{"closes": str(path)}], SAMPLING, ORIGIN)
        assert not path.exists()
    assert path.read_text() == "x" * SAMPLING.num_episodes


def test_closing_ends_workers_that_are_busy(tmp_path):
    path = tmp_path / "waits"
    pool = sampler(1)

    def wait():
        # The pipe ends with the worker, in one way or another.
        with suppress(Exception):
            pool.sample(PARAMS, [{"waits": str(path)}], SAMPLING, ORIGIN)

    threading.Thread(target=wait, daemon=True).start()
    assert becomes(path.exists)
    (worker,) = multiprocessing.active_children()
    pool.close()
    assert not os.path.exists(f"/proc/{worker.pid}")


SCRIPT = """
import sys
from tests.sampling import test_worker_pool as t
t.sampler(2).sample(t.PARAMS, [{"waits": sys.argv[1] + str(i)} for i in range(2)], t.SAMPLING, t.ORIGIN)
"""


def test_no_process_outlives_a_parent_that_is_killed(tmp_path):
    marker = uuid.uuid4().hex
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "waits")]
    parent = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"MARKER": marker})
    try:
        assert becomes(lambda: len(list(tmp_path.glob("waits*"))) == 2)
        assert len(alive(marker)) >= 4  # the parent, the fork server, two workers
    finally:
        parent.kill()
        parent.wait()
    assert becomes(lambda: not alive(marker))


def test_what_a_killed_program_left_in_the_temporary_folder_is_removed_by_the_next(tmp_path, monkeypatch):
    """Three programs, each with a temporary folder of its own; the first is killed."""
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: tempfile.mkdtemp(prefix="pymp-", dir=tmp_path))
    others = tmp_path / "pymp-other", tmp_path / "pymp-of_another_program" / processes.IN_USE
    for folder in others:
        folder.mkdir(parents=True)
    handles, lock = [], processes._lock
    monkeypatch.setattr(processes, "_lock", lambda *arguments: handles.append(lock(*arguments)) or handles[-1])
    for expected in (1, 2):
        processes._claim_temporary_folder.__wrapped__()
        assert len(list(tmp_path.glob(f"pymp-*/{processes.IN_USE}"))) == expected + 1
    os.close(handles[0])  # as the system does for a process that is killed
    processes._claim_temporary_folder.__wrapped__()
    assert len(list(tmp_path.glob(f"pymp-*/{processes.IN_USE}"))) == 3 and all(folder.exists() for folder in others)
