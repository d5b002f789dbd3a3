"""A pool of worker processes that compute groups of tasks.

What a group of tasks gives is a pure function of its arguments (`rl.sampling.rollout.meta_rollout`); the size of a
group is fixed by the configuration. So the results do not depend on the number of workers, and the groups of a worker
that died are simply computed again. How many groups a worker takes at once does depend on it, and decides nothing but
speed.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

from rl import envs, start
from rl.errors import EpisodeError, UserError
from rl.policies import make_policy
from rl.sampling import processes
from rl.sampling.rollout import Phases, meta_rollout

MAX_ATTEMPTS = 3
STARTING = 10.0  # s
LAST_BREATH = 2.0  # s from the end of a worker's pipe to its exit status
LONGEST_WAIT = 1e6  # s; the operating system takes no much longer ones
SIDE_BY_SIDE = 4  # groups that a worker takes at once, at most: more hardly saves time, and costs memory


class WorkerError(Exception):
    """An exception inside a worker; its text ends with the worker's own traceback."""


class Setting(NamedTuple):
    """What a worker needs once: the environment and the policy's `Architecture`."""

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


class Sampler:
    """Computes tasks in worker processes.

    Args:
        setting: `Setting`.
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
            sampling: `rl.sampling.rollout.Sampling`.
            origin: `rl.sampling.rollout.Origin` of the first task.

        Returns:
            `rl.sampling.rollout.Phases` of all K tasks, in order.

        Raises:
            WorkerError: an exception in a worker, or a group that no worker survived.
        """
        # Arrays travel through the pipe. Tensors would be handed over in shared memory, by a thread that complains
        # when the other end goes away.
        params = {name: value.detach().cpu().numpy() for name, value in params.items()}
        num_groups = math.ceil(len(tasks) / self.tasks_per_group)
        # Workers beyond the number of cores would take turns, and find the caches full of each other's data.
        at_work = min(len(self._workers), os.cpu_count() or 1)
        size = self.tasks_per_group * groups_at_once(num_groups, at_work)
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
        return Phases.concatenate(self._compute(jobs))

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
        deadline = time.monotonic() + STARTING
        while True:
            try:
                with processes.starting():
                    return _Worker(self._context, self.setting)
            except (ConnectionError, EOFError) as error:
                # A fork server that was killed is missed, and another one started, a moment after its death.
                if time.monotonic() > deadline:
                    raise WorkerError(f"no worker can be started: {error}") from error
                time.sleep(0.05)

    def _compute(self, jobs):
        busy = {}
        try:
            return self._compute_with(jobs, busy)
        except BaseException:
            # Results still to come would be taken for those of the next call.
            for place in busy:
                self._workers[place].end()
                self._workers[place] = None
            raise

    def _compute_with(self, jobs, busy):
        results = [None] * len(jobs)
        attempts = [0] * len(jobs)
        waiting = list(reversed(range(len(jobs))))
        allowed, deadlines = {}, {}
        while waiting or busy:
            for place in range(len(self._workers)):
                if waiting and place not in busy:
                    worker = self._workers[place] = self._workers[place] or self._start()
                    number = waiting.pop()
                    attempts[number] += 1
                    busy[place] = number
                    num_groups = math.ceil(len(jobs[number].tasks) / self.tasks_per_group)
                    allowed[place] = min(self.timeout * num_groups, LONGEST_WAIT)
                    deadlines[place] = time.monotonic() + allowed[place]
                    with worker.killed_at(deadlines[place]):
                        worker.submit(jobs[number])
            patience = max(0.0, min(deadlines[place] for place in busy) - time.monotonic())
            ready = connection.wait([self._workers[place].pipe for place in busy], patience)
            for place, number in list(busy.items()):
                if self._workers[place].pipe not in ready and time.monotonic() < deadlines[place]:
                    continue
                del busy[place]
                try:
                    if self._workers[place].pipe not in ready:
                        raise TimeoutError
                    with self._workers[place].killed_at(deadlines[place]):
                        outcome = self._workers[place].pipe.recv()
                except (EOFError, OSError):
                    late = time.monotonic() >= deadlines[place]
                    reason = f"gave no result within {allowed[place]:g} s" if late else self._workers[place].ended()
                    self._replace(place, attempts[number], reason)
                    waiting.append(number)
                    continue
                if isinstance(outcome, str):
                    raise WorkerError(outcome)
                results[number] = outcome
        return results

    def _replace(self, place, attempts, reason):
        self._workers[place].end()
        if attempts >= MAX_ATTEMPTS:
            raise WorkerError(f"the same group of tasks failed in {attempts} workers; the last one {reason}")
        self.restarts += 1
        print(f"a worker {reason}; it is replaced and its tasks are computed again", file=sys.stderr, flush=True)
        self._workers[place] = self._start()


def groups_at_once(num_groups, num_workers):
    """How many groups a worker takes at once: all are dealt in as few, equal rounds as `SIDE_BY_SIDE` allows."""
    rounds = math.ceil(num_groups / (num_workers * SIDE_BY_SIDE))
    return math.ceil(num_groups / (num_workers * rounds))


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, context, setting):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, setting), daemon=True)
        self.process.start()
        theirs.close()

    def submit(self, job):
        """Send a job; a worker that is dead is noticed when its result is awaited."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job)

    @contextlib.contextmanager
    def killed_at(self, deadline):
        """Sending or receiving ends at a deadline, at which the worker is killed, even in the middle of a message."""
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def ended(self):
        """How the process came to its end, in words."""
        self.process.join(LAST_BREATH)
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


def _work(pipe, setting):
    """What a worker does: receive jobs, send results (or the text of an exception) until the pipe closes."""
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
            outcome = meta_rollout(
                environments[num_envs], policy, params, job.tasks, job.sampling, job.origin, job.group_size
            )
        except (Exception, SystemExit) as error:  # an environment's code may be the user's
            outcome = _told(error, setting.env_name, job.origin)
        try:
            pipe.send(outcome)
        except OSError:
            return


def _told(error, env_name, origin):
    """An exception in words: where, what, and its traceback where the words do not say enough."""
    place, cause = f"tasks from {origin.first_task}", error
    if isinstance(error, EpisodeError):
        place, cause = error.place, error.__cause__
    place = f"({place}, iteration {origin.iteration})"
    if isinstance(cause, UserError):
        return f"{env_name}: {cause} {place}"
    return f"{env_name}: {type(cause).__name__}: {cause} {place}\n{traceback.format_exc()}"
