"""A pool of worker processes that compute jobs.

The result of a job is a pure function of its arguments, so results do not depend on the number of workers, and the jobs
of a worker that died are simply computed again.

Why not `concurrent.futures` or loky: both give up a whole pool when one of its processes dies or hangs, and neither
ends a process that stands still in the middle of a message; here one worker is replaced, and the others go on.
"""

import contextlib
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from typing import NamedTuple

import torch
from torch import Tensor

from rl import machine, start
from rl.sampling import processes
from rl.sampling.jobs import Job, JobRunner, WorkerError, WorkerSpec, split
from rl.sampling.rollout import AdaptationPlan, Rollouts, StreamName, Tasks

MAX_ATTEMPTS = 3  # workers that a job is given to
START_TIMEOUT = 10.0  # s, for the fork server
EXIT_TIMEOUT = 2.0  # s from the end of a worker's pipe to its exit
LONGEST_WAIT = 1e6  # s; the operating system takes no much longer ones


class WorkerPool:
    """A `Sampler` that computes in worker processes.

    Args:
        num_workers: how many processes; changes speed only.
        tasks_per_group: how many tasks are computed together; decides the last bits of the results.
        timeout: seconds a group after which a worker without a result counts as dead.
    """

    def __init__(self, spec: WorkerSpec, num_workers: int, tasks_per_group: int, timeout: float = 600.0):
        self.spec = spec
        self.tasks_per_group = tasks_per_group
        self.timeout = timeout
        self.restarts = 0
        # The fork server is a process of its own that has imported torch but never run it: forking it is safe and
        # quick, and its workers share the pages of the libraries.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["rl.sampling.worker_pool"])
        self._workers: list[_Worker | None] = [None] * num_workers
        # Workers beyond the number of cores would take turns, and find the caches full of each other's data.
        self._num_busy = min(num_workers, machine.cores())
        self._workers = [self._start() for _ in range(num_workers)]

    def sample(self, params: dict[str, Tensor], tasks: Tasks, plan: AdaptationPlan, stream: StreamName) -> Rollouts:
        """As `Sampler.sample`."""
        jobs = split(params, tasks, plan, stream, self.tasks_per_group, self._num_busy)
        return Rollouts.concatenate(self._compute(list(jobs)))

    def close(self) -> None:
        """End all workers, once they have closed their environments; those that take longer than `EXIT_TIMEOUT` for it
        are killed.
        """
        workers = list(filter(None, self._workers))
        for worker in workers:
            worker.pipe.close()
        deadline = time.monotonic() + EXIT_TIMEOUT
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.end()
        self._workers = []

    def _start(self) -> "_Worker":
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with processes.starting():
                    return _Worker(self._context, self.spec)
            except (ConnectionError, EOFError) as error:
                # A fork server that was killed is noticed, and another one started, only after a moment.
                if time.monotonic() > deadline:
                    raise WorkerError(f"no worker can be started: {error}") from error
                time.sleep(0.05)

    def _compute(self, jobs: list[Job]) -> list[Rollouts]:
        """The results of all jobs, in order."""
        busy: dict[int, _Assignment] = {}
        try:
            return self._compute_with(jobs, busy)
        except BaseException:
            # Results still to come would be taken for those of the next call.
            for slot, assignment in busy.items():
                assignment.worker.end()
                self._workers[slot] = None
            raise

    def _compute_with(self, jobs: list[Job], busy: "dict[int, _Assignment]") -> list[Rollouts]:
        """As `_compute`; `busy` holds the `_Assignment` of each slot of `_workers` that is at a job."""
        results: dict[int, Rollouts] = {}
        attempts = [0] * len(jobs)
        waiting = list(reversed(range(len(jobs))))
        while waiting or busy:
            for slot in range(self._num_busy):
                if waiting and slot not in busy:
                    number = waiting.pop()
                    attempts[number] += 1
                    self._assign(slot, number, jobs[number], busy)
            next_deadline = min(assignment.deadline for assignment in busy.values())
            pipes = [assignment.worker.pipe for assignment in busy.values()]
            ready = connection.wait(pipes, max(0.0, next_deadline - time.monotonic()))
            for slot, (worker, number, timeout, deadline) in list(busy.items()):
                if worker.pipe not in ready and time.monotonic() < deadline:
                    continue
                del busy[slot]
                try:
                    if worker.pipe not in ready:
                        raise TimeoutError
                    with worker.killed_at(deadline):
                        result = worker.pipe.recv()
                except (EOFError, OSError):
                    late = time.monotonic() >= deadline
                    reason = f"gave no result within {timeout:g} s" if late else worker.exit_reason()
                    worker.end()
                    self._replace(slot, attempts[number], reason)
                    waiting.append(number)
                    continue
                if isinstance(result, str):
                    raise WorkerError(result)
                results[number] = result
        return [results[number] for number in range(len(jobs))]

    def _assign(self, slot: int, number: int, job: Job, busy: "dict[int, _Assignment]") -> None:
        """Send a job to the worker of a slot, started first if there is none."""
        worker = self._workers[slot] = self._workers[slot] or self._start()
        timeout = min(self.timeout * job.num_groups, LONGEST_WAIT)
        busy[slot] = _Assignment(worker, number, timeout, time.monotonic() + timeout)
        with worker.killed_at(busy[slot].deadline):
            worker.submit(job)

    def _replace(self, slot: int, attempts: int, reason: str) -> None:
        self._workers[slot] = None
        if attempts >= MAX_ATTEMPTS:
            raise WorkerError(f"the same group of tasks failed in {attempts} workers; the last one {reason}")
        self.restarts += 1
        print(f"a worker {reason}; it is replaced and its tasks are computed again", file=sys.stderr, flush=True)
        self._workers[slot] = self._start()


class _Assignment(NamedTuple):
    """A job that a worker is at: its number, the seconds that it may take, and when (`time.monotonic`) they end."""

    worker: "_Worker"
    number: int
    timeout: float
    deadline: float


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, context: ForkServerContext, spec: WorkerSpec):
        self.pipe, workers_end = context.Pipe()
        self.process = context.Process(target=_run_jobs, args=(workers_end, spec), daemon=True)
        self.process.start()
        workers_end.close()

    def submit(self, job: Job) -> None:
        """Send a job; a worker that is dead is noticed when its result is awaited."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job)

    @contextlib.contextmanager
    def killed_at(self, deadline: float) -> Iterator[None]:
        """Kill the worker at a deadline: one that hangs in the middle of a message would block this process."""
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def exit_reason(self) -> str:
        """How the process ended, for messages."""
        self.process.join(EXIT_TIMEOUT)
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL; out of memory?)"
        if code is not None and code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"ended by itself with exit code {code}"

    def end(self) -> None:
        """Stop the process at once."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _run_jobs(pipe: connection.Connection, spec: WorkerSpec) -> None:
    """The worker process: receive jobs and send results (or the text of an exception) until the pipe closes, then close
    the environments.
    """
    processes.end_with_parent()
    start.keep_freed_memory()
    torch.set_num_threads(1)
    runner = JobRunner(spec)
    with contextlib.closing(runner), contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                result: Rollouts | str = runner.run(job)
            except WorkerError as error:
                result = str(error)
            pipe.send(result)
