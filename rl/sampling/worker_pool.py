"""A pool of worker processes that compute groups of tasks.

The result of a group of tasks is a pure function of its arguments (`rl.sampling.rollout.meta_rollout`); the size of a
group is fixed by the configuration. So the results do not depend on the number of workers, and the groups of a worker
that died are simply computed again. The number of workers decides how many groups one takes at once, and with that
nothing but speed.
"""

import contextlib
import math
import multiprocessing
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

from rl import envs, machine, start
from rl.errors import EpisodeError, UserError
from rl.policies import make_policy
from rl.sampling import processes
from rl.sampling.rollout import Rollouts, meta_rollout

MAX_ATTEMPTS = 3  # workers that a job is given to
START_TIMEOUT = 10.0  # s, for the fork server
EXIT_TIMEOUT = 2.0  # s from the end of a worker's pipe to its exit status
LONGEST_WAIT = 1e6  # s; the operating system takes no much longer ones
MAX_GROUPS_AT_ONCE = 4  # of a worker: more hardly save time, and cost memory


class WorkerError(Exception):
    """An exception inside a worker; its text ends with the worker's own traceback."""


class WorkerSpec(NamedTuple):
    """What a worker is given at its start: the environment and the policy's `Architecture`."""

    env_name: str
    env_options: dict[str, Any]
    architecture: Any


class Job(NamedTuple):
    """Groups of tasks: the arguments of `meta_rollout` besides the environment and the policy; θ as arrays."""

    params: dict
    tasks: list
    sampling: Any
    origin: Any
    group_size: int


class WorkerPool:
    """Samples and adapts on tasks in worker processes.

    Args:
        setting: `WorkerSpec`.
        num_workers: how many processes; decides nothing but speed.
        tasks_per_group: how many tasks are computed together; decides the last bits of the results.
        timeout: seconds a group after which a worker without a result counts as dead.
    """

    def __init__(self, setting, num_workers, tasks_per_group=5, timeout=600.0):
        self.setting = setting
        self.tasks_per_group = tasks_per_group
        self.timeout = timeout
        self.restarts = 0
        # The fork server is a process of its own that has imported torch but never run it: forking it is safe and
        # quick, and its workers share the pages of the libraries.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["rl.sampling.worker_pool"])
        self._workers = [None] * num_workers
        self._workers = [self._start() for _ in range(num_workers)]

    def sample(self, params, tasks, sampling, origin):
        """Sample and adapt on tasks.

        Args:
            params: θ, dict of tensors.
            tasks: list of K tasks.
            sampling: `rl.sampling.rollout.AdaptationPlan`.
            origin: `rl.sampling.rollout.StreamName` of the first task.

        Returns:
            `rl.sampling.rollout.Rollouts` of all K tasks, in order.

        Raises:
            WorkerError: an exception in a worker, or a group that no worker survived.
        """
        # Arrays are sent through the pipe. Tensors would be passed in shared memory, by a thread that prints an error
        # when the other process ends.
        params = {name: value.detach().cpu().numpy() for name, value in params.items()}
        num_groups = math.ceil(len(tasks) / self.tasks_per_group)
        # Workers beyond the number of cores would take turns, and find the caches full of each other's data.
        num_busy = min(len(self._workers), machine.cores())
        size = self.tasks_per_group * groups_at_once(num_groups, num_busy)
        jobs = [
            Job(
                params,
                tasks[start : start + size],
                sampling,
                origin._replace(first_task=origin.first_task + start),
                self.tasks_per_group,
            )
            for start in range(0, len(tasks), size)
        ]
        return Rollouts.concatenate(self._compute(jobs))

    def close(self):
        """End all workers."""
        for worker in filter(None, self._workers):
            worker.end()
        self._workers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with processes.starting():
                    return _Worker(self._context, self.setting)
            except (ConnectionError, EOFError) as error:
                # A fork server that was killed is noticed, and another one started, only after a moment.
                if time.monotonic() > deadline:
                    raise WorkerError(f"no worker can be started: {error}") from error
                time.sleep(0.05)

    def _compute(self, jobs):
        """The results of all jobs, in order."""
        busy = {}
        try:
            return self._compute_with(jobs, busy)
        except BaseException:
            # Results still to come would be taken for those of the next call.
            for slot in busy:
                self._workers[slot].end()
                self._workers[slot] = None
            raise

    def _compute_with(self, jobs, busy):
        """As `_compute`; `busy` holds the `_Assignment` of each slot of `_workers` that is at a job."""
        results = [None] * len(jobs)
        attempts = [0] * len(jobs)
        waiting = list(reversed(range(len(jobs))))
        while waiting or busy:
            for slot in range(len(self._workers)):
                if waiting and slot not in busy:
                    number = waiting.pop()
                    attempts[number] += 1
                    self._assign(slot, number, jobs[number], busy)
            next_deadline = min(assignment.deadline for assignment in busy.values())
            pipes = [self._workers[slot].pipe for slot in busy]
            ready = connection.wait(pipes, max(0.0, next_deadline - time.monotonic()))
            for slot, (number, timeout, deadline) in list(busy.items()):
                worker = self._workers[slot]
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
                    self._replace(slot, attempts[number], reason)
                    waiting.append(number)
                    continue
                if isinstance(result, str):
                    raise WorkerError(result)
                results[number] = result
        return results

    def _assign(self, slot, number, job, busy):
        """Send a job to the worker of a slot, started first if there is none."""
        worker = self._workers[slot] = self._workers[slot] or self._start()
        timeout = min(self.timeout * math.ceil(len(job.tasks) / self.tasks_per_group), LONGEST_WAIT)
        busy[slot] = _Assignment(number, timeout, time.monotonic() + timeout)
        with worker.killed_at(busy[slot].deadline):
            worker.submit(job)

    def _replace(self, slot, attempts, reason):
        self._workers[slot].end()
        if attempts >= MAX_ATTEMPTS:
            raise WorkerError(f"the same group of tasks failed in {attempts} workers; the last one {reason}")
        self.restarts += 1
        print(f"a worker {reason}; it is replaced and its tasks are computed again", file=sys.stderr, flush=True)
        self._workers[slot] = self._start()


def groups_at_once(num_groups, num_workers):
    """How many groups a worker takes at once: equally many a round, in as few rounds as `MAX_GROUPS_AT_ONCE` allows."""
    rounds = math.ceil(num_groups / (num_workers * MAX_GROUPS_AT_ONCE))
    return math.ceil(num_groups / (num_workers * rounds))


class _Assignment(NamedTuple):
    """A job that a worker is at: its number, the seconds that it may take, and when (`time.monotonic`) they end."""

    number: int
    timeout: float
    deadline: float


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, context, setting):
        self.pipe, workers_end = context.Pipe()
        self.process = context.Process(target=_run_jobs, args=(workers_end, setting), daemon=True)
        self.process.start()
        workers_end.close()

    def submit(self, job):
        """Send a job; a worker that is dead is noticed when its result is awaited."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job)

    @contextlib.contextmanager
    def killed_at(self, deadline):
        """Kill the worker at a deadline: one that hangs in the middle of a message would block this process."""
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def exit_reason(self):
        """How the process ended, for messages."""
        self.process.join(EXIT_TIMEOUT)
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL; out of memory?)"
        if code is not None and code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"ended by itself with exit code {code}"

    def end(self):
        """Stop the process at once."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _run_jobs(pipe, setting):
    """The worker process: receive jobs and send results (or the text of an exception) until the pipe closes."""
    processes.end_with_parent()
    start.keep_freed_memory()
    torch.set_num_threads(1)
    policy = make_policy(setting.architecture)
    environments = {}
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            num_envs = len(job.tasks) * job.sampling.num_episodes
            if num_envs not in environments:
                environments[num_envs] = envs.make(setting.env_name, num_envs, **setting.env_options)
            # Copies, since the memory that torch itself allocates is aligned: a product's last bits may depend on that.
            params = {name: torch.tensor(value) for name, value in job.params.items()}
            result = meta_rollout(
                environments[num_envs], policy, params, job.tasks, job.sampling, job.origin, job.group_size
            )
        except (Exception, SystemExit) as error:  # an environment's code may be the user's
            result = _describe(error, setting.env_name, job.origin)
        try:
            pipe.send(result)
        except OSError:
            return


def _describe(error, env_name, origin):
    """The text of an exception: what, where, and its traceback unless it is a `UserError`."""
    place, cause = f"tasks from {origin.first_task}", error
    if isinstance(error, EpisodeError):
        place, cause = error.place, error.__cause__
    place = f"({place}, iteration {origin.iteration})"
    if isinstance(cause, UserError):
        return f"{env_name}: {cause} {place}"
    return f"{env_name}: {type(cause).__name__}: {cause} {place}\n{traceback.format_exc()}"
