import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest
import torch

import rl.envs
from rl.policies import Architecture, make_policy
from rl.sampling.worker_pool import (
    MAX_ATTEMPTS,
    MAX_GROUPS_AT_ONCE,
    WorkerError,
    WorkerPool,
    WorkerSpec,
    groups_at_once,
)
from tests.support.broken_env import HORIZON
from tests.support.helpers import ROOT, alive, becomes, random_params
from tests.support.in_process import OBSTINATE, ORIGIN, PARAMS, SAMPLING, InProcessSampler, assert_same_phases

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
    with WorkerPool(NAVIGATION, num_workers, tasks_per_group=3) as pool:
        assert_same_phases(pool.sample(params, tasks, SAMPLING, ORIGIN), expected)
        # The same workers again: nothing is left over from the first time.
        assert_same_phases(pool.sample(params, tasks, SAMPLING, ORIGIN), expected)
        assert pool.restarts == 0


@pytest.mark.parametrize(
    "num_groups, num_workers, expected",
    [(8, 4, 2), (9, 4, 3), (4, 4, 1), (3, 4, 1), (1, 1, 1), (8, 2, 4), (8, 1, 4), (9, 1, 3), (20, 4, 3), (16, 4, 4)],
)
def test_groups_are_dealt_in_few_equal_rounds(num_groups, num_workers, expected):
    assert groups_at_once(num_groups, num_workers) == expected <= MAX_GROUPS_AT_ONCE


def test_a_users_environment_is_sampled():
    with sampler() as pool:
        phases = pool.sample(PARAMS, [{}, {}, {}], SAMPLING, ORIGIN)
    assert phases.episodes[0].rewards.shape == (3, HORIZON, 2)
    assert_same_phases(phases, without_workers([{}, {}, {}]))


def test_a_worker_that_is_killed_is_replaced_and_its_group_computed_again(tmp_path):
    tasks = [{}, {"dies": str(tmp_path / "deaths"), "times": MAX_ATTEMPTS - 1}, {}]
    with sampler() as pool:
        phases = pool.sample(PARAMS, tasks, SAMPLING, ORIGIN)
        assert pool.restarts == MAX_ATTEMPTS - 1
        assert len(multiprocessing.active_children()) == 2
        # The pool is whole again.
        assert_same_phases(pool.sample(PARAMS, tasks, SAMPLING, ORIGIN), phases)
        assert pool.restarts == MAX_ATTEMPTS - 1
    # The tasks differ in nothing that the rewards depend on.
    assert_same_phases(phases, without_workers([{}, {}, {}]))


def test_a_worker_that_is_killed_between_two_samples_is_replaced():
    with sampler() as pool:
        first = pool.sample(PARAMS, [{}, {}], SAMPLING, ORIGIN)
        (victim, _) = multiprocessing.active_children()
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert_same_phases(pool.sample(PARAMS, [{}, {}], SAMPLING, ORIGIN), first)
        assert pool.restarts == 1


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
    with sampler() as pool, pytest.raises(WorkerError, match=rf"failed in 3 workers; the last one {told}$"):
        pool.sample(PARAMS, tasks, SAMPLING, ORIGIN)
    assert (tmp_path / "deaths").stat().st_size == MAX_ATTEMPTS == 3


def test_an_exception_arrives_with_the_workers_traceback():
    with sampler() as pool, pytest.raises(WorkerError) as caught:
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
    with WorkerPool(WorkerSpec(name, {}, architecture), 1, 2) as pool, pytest.raises(WorkerError) as caught:
        pool.sample(params, [first, task], SAMPLING, ORIGIN)
    assert str(caught.value) == f"{name}: {complaint}"


def test_after_an_exception_the_pool_computes_what_it_is_asked_for():
    with sampler() as pool:
        for _ in range(3):
            # The other worker's result of this sample must not be taken for one of the next.
            with pytest.raises(WorkerError):
                pool.sample(PARAMS, [{"raises": "no more"}, {}], SAMPLING, ORIGIN)
            tasks = [{}, {}, {}]
            found = pool.sample(PARAMS, tasks, SAMPLING, ORIGIN._replace(iteration=9))
            with sampler(1) as fresh:
                assert_same_phases(found, fresh.sample(PARAMS, tasks, SAMPLING, ORIGIN._replace(iteration=9)))


def test_no_worker_outlives_the_pool():
    pool = sampler(3)
    workers = multiprocessing.active_children()
    assert len(workers) == 3
    pool.close()
    assert multiprocessing.active_children() == []
    assert not any(os.path.exists(f"/proc/{worker.pid}") for worker in workers)


def test_a_worker_that_is_killed_at_work_is_replaced(tmp_path):
    path = tmp_path / "waits"
    results = []
    with sampler(1) as pool:
        thread = threading.Thread(
            target=lambda: results.append(pool.sample(PARAMS, [{"waits": str(path)}], SAMPLING, ORIGIN)), daemon=True
        )
        thread.start()
        assert becomes(path.exists)
        (victim,) = multiprocessing.active_children()
        os.kill(victim.pid, signal.SIGKILL)
        path.with_suffix(".go").touch()
        thread.join(20)
        assert pool.restarts == 1
    assert_same_phases(results[0], without_workers([{}]))


def test_closing_ends_workers_that_are_busy(tmp_path):
    path = tmp_path / "waits"
    pool = sampler(1)

    def wait():
        # The pipe ends with the worker, in one way or another.
        with contextlib.suppress(Exception):
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
