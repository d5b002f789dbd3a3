"""Signals, and workers that die, hang or lose their parent."""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from rl.policies import make_policy
from rl.run.interrupts import Interrupted, Interrupts
from rl.sampling.jobs import WorkerError
from rl.sampling.worker_pool import MAX_ATTEMPTS, WorkerPool
from tests.support.forked import Forked
from tests.support.helpers import PATIENCE, becomes, random_params
from tests.support.in_process import OBSTINATE, ORIGIN, PARAMS, SAMPLING, assert_same_rollouts
from tests.torture import STATUSES

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@SIGNALS
def test_a_signal_waits_for_the_end_of_what_is_shielded(number):
    reached = []
    with pytest.raises(Interrupted) as caught, Interrupts() as interrupts:
        with interrupts.shield():
            os.kill(os.getpid(), number)
            reached.append("the end of the block")
        reached.append("the line after it")
    assert reached == ["the end of the block"]
    assert caught.value.status == 128 + number == STATUSES[number][0]


@SIGNALS
def test_a_signal_interrupts_what_is_not_shielded(number):
    with pytest.raises(Interrupted, match=number.name), Interrupts() as interrupts:
        with interrupts.shield():
            pass
        os.kill(os.getpid(), number)
        pytest.fail("went on")


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


PENDING = r"(?:Sig|Shd)Pnd:\s*(\w+)"


def stubborn():
    with Interrupts() as interrupts, interrupts.shield():
        print("begun", flush=True)
        time.sleep(PATIENCE)


def test_a_second_signal_stops_at_once(tmp_path):
    program, number = Forked(tmp_path, [], stubborn), signal.SIGTERM
    program.until_lines(1)
    program.process.send_signal(number)
    # Once the first one is no longer pending, it has been put off.
    status = Path(f"/proc/{program.process.pid}/status")
    assert becomes(lambda: not any(int(mask, 16) for mask in re.findall(PENDING, status.read_text())))
    assert program.process.poll() is None
    program.process.send_signal(number)
    assert program.finish() == 128 + number


class Impatient(WorkerPool):
    """Gives workers a second a group until it has replaced so many, and then all the time in the world: what hangs is
    waited for briefly, what is only slow on a busy machine is not mistaken for it.
    """

    def expect_hanging(self, count):
        self.timeout, self.hanging = 1.0, self.restarts + count

    def _replace(self, *arguments):
        super()._replace(*arguments)
        if self.restarts == self.hanging:
            self.timeout = PATIENCE


def test_workers_that_hang_are_replaced():
    # θ is larger than what a pipe takes at once: a worker that is stopped leaves the parent in the middle of it.
    wide = OBSTINATE.architecture._replace(hidden_sizes=(600, 600))
    params = random_params(make_policy(wide), dtype=torch.float32)
    assert sum(value.numel() for value in params.values()) * 4 > 2**20
    with closing(Impatient(OBSTINATE._replace(architecture=wide), 2, tasks_per_group=1)) as pool:
        expected = pool.sample(params, [{}, {}], SAMPLING, ORIGIN)
        pool.expect_hanging(2)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGSTOP)
        assert_same_rollouts(pool.sample(params, [{}, {}], SAMPLING, ORIGIN), expected)
        assert pool.restarts == 2


def test_a_worker_that_hangs_in_the_middle_of_its_result_is_replaced(monkeypatch):
    with closing(Impatient(OBSTINATE, 1, tasks_per_group=2)) as pool:
        expected = pool.sample(PARAMS, [{}, {}], SAMPLING, ORIGIN)
        pool.expect_hanging(1)
        (worker,) = pool._workers
        receive = worker.pipe.recv

        def stopped():
            # As if it had been stopped after the first byte: something is there to be read, but not all.
            os.kill(worker.process.pid, signal.SIGSTOP)
            receive()
            return receive()

        monkeypatch.setattr(worker, "pipe", Delayed(worker.pipe, stopped))
        assert_same_rollouts(pool.sample(PARAMS, [{}, {}], SAMPLING, ORIGIN), expected)
        assert pool.restarts == 1


class Delayed:
    """A pipe with another way to receive."""

    def __init__(self, pipe, receive):
        self.pipe, self.recv = pipe, receive

    def __getattr__(self, name):
        return getattr(self.pipe, name)


def test_a_group_on_which_every_worker_hangs_is_an_error(tmp_path):
    tasks = [{"waits": str(tmp_path / "waits")}]
    with (
        closing(WorkerPool(OBSTINATE, 1, tasks_per_group=5, timeout=1.0)) as pool,
        pytest.raises(WorkerError, match=r"failed in 3 workers; the last one gave no result within 1 s$"),
    ):
        pool.sample(PARAMS, tasks, SAMPLING, ORIGIN)
    assert pool.restarts == MAX_ATTEMPTS - 1


def test_a_worker_with_several_groups_has_their_time():
    """One of them takes longer than a group alone may, and much less than all: 2 episodes of 4 steps, before and after
    the update, are 2 s of 4 · 1.9 s.
    """
    with closing(WorkerPool(OBSTINATE, 1, tasks_per_group=1)) as pool:
        pool.sample(PARAMS, [{}] * 4, SAMPLING, ORIGIN)  # it is up
        pool.timeout = 1.9
        pool.sample(PARAMS, [{}, {"sleeps": 0.125}, {}, {}], SAMPLING, ORIGIN)
        assert pool.restarts == 0


def test_the_longest_timeout_is_no_error():
    with closing(WorkerPool(OBSTINATE, 1, tasks_per_group=5, timeout=1e300)) as pool:
        pool.sample(PARAMS, [{}], SAMPLING, ORIGIN)


def test_the_death_of_the_fork_server_is_survived(monkeypatch):
    """New workers need a new one."""
    with closing(WorkerPool(OBSTINATE, 1, tasks_per_group=1)) as pool:
        expected = pool.sample(PARAMS, [{}], SAMPLING, ORIGIN)
        (worker,) = multiprocessing.active_children()
        stat = Path(f"/proc/{worker.pid}/stat").read_text()
        server = int(stat.rpartition(")")[2].split()[1])
        for pid in (server, worker.pid):
            os.kill(pid, signal.SIGKILL)
        assert_same_rollouts(pool.sample(PARAMS, [{}], SAMPLING, ORIGIN), expected)
        assert pool.restarts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_stopped_worker_ends_with_its_fork_server():
    with closing(WorkerPool(OBSTINATE, 1, tasks_per_group=5)) as pool:
        worker = pool._workers[0].process.pid
        status = Path(f"/proc/{worker}/status")
        server = int(re.search(r"PPid:\s*(\d+)", status.read_text())[1])
        pool.sample(PARAMS, [{}], SAMPLING, ORIGIN)  # it is up
        os.kill(worker, signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        assert becomes(lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_no_thread_is_left_by_the_deadlines():
    before = threading.active_count()
    with closing(WorkerPool(OBSTINATE, 1, tasks_per_group=5)) as pool:
        pool.sample(PARAMS, [{}] * 12, SAMPLING, ORIGIN)
    assert becomes(lambda: threading.active_count() <= before)
