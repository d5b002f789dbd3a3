"""A pool of worker processes that compute groups of tasks.

The unit of work is one group, a pure function of its arguments (`rl.rollout.meta_rollout`); the size of a group is
fixed by the configuration. So the results do not depend on the number of workers, and the group of a worker that died
is simply computed again.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

from rl import envs
from rl.policies import make_policy
from rl.rollout import Phases, meta_rollout

MAX_ATTEMPTS = 3


class WorkerError(Exception):
    """An exception inside a worker; its text ends with the worker's own traceback."""


class Setting(NamedTuple):
    """What a worker needs once: the environment and the policy's `Architecture`."""

    env_name: str
    env_options: dict[str, Any]
    architecture: Any


class Job(NamedTuple):
    """One group of tasks: the arguments of `meta_rollout` besides the environment and the policy."""

    params: dict
    tasks: list
    sampling: Any
    origin: Any


class Sampler:
    """Computes groups of tasks in worker processes.

    Args:
        setting: `Setting`.
        num_workers: how many processes; decides nothing but speed.
        tasks_per_group: how many tasks are computed together; decides the last bits of the results.
    """

    def __init__(self, setting, num_workers, tasks_per_group=5):
        self.setting = setting
        self.tasks_per_group = tasks_per_group
        self.restarts = 0
        # The fork server is a process of its own that has imported torch but never run it: forking it is safe and
        # quick, and its workers share the pages of the libraries.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["rl.sampler"])
        self._workers = [self._start() for _ in range(num_workers)]

    def sample(self, params, tasks, sampling, origin):
        """Sample and adapt on tasks.

        Args:
            params: θ, dict of tensors.
            tasks: list of K tasks.
            sampling: `rl.rollout.Sampling`.
            origin: `rl.rollout.Origin` of the first task.

        Returns:
            `rl.rollout.Phases` of all K tasks, in order.

        Raises:
            WorkerError: an exception in a worker, or a group that no worker survived.
        """
        params = {name: value.detach().cpu() for name, value in params.items()}
        size = self.tasks_per_group
        jobs = [
            Job(params, tasks[start : start + size], sampling, origin._replace(first_task=origin.first_task + start))
            for start in range(0, len(tasks), size)
        ]
        return Phases.concatenate(self._compute(jobs))

    def close(self):
        """End all workers."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self):
        return _Worker(self._context, self.setting)

    def _compute(self, jobs):
        results = [None] * len(jobs)
        attempts = [0] * len(jobs)
        waiting = list(reversed(range(len(jobs))))
        busy = {}
        while waiting or busy:
            for place, worker in enumerate(self._workers):
                if waiting and place not in busy:
                    number = waiting.pop()
                    attempts[number] += 1
                    busy[place] = number
                    worker.submit(jobs[number])
            ready = connection.wait([self._workers[place].pipe for place in busy])
            for place, number in list(busy.items()):
                if self._workers[place].pipe not in ready:
                    continue
                del busy[place]
                try:
                    outcome = self._workers[place].pipe.recv()
                except (EOFError, OSError):
                    self._replace(place, attempts[number])
                    waiting.append(number)
                    continue
                if isinstance(outcome, str):
                    raise WorkerError(outcome)
                results[number] = outcome
        return results

    def _replace(self, place, attempts):
        worker = self._workers[place]
        worker.end()
        if attempts >= MAX_ATTEMPTS:
            raise WorkerError(
                f"the same group of tasks ended {attempts} workers (last exit code {worker.process.exitcode}); "
                "out of memory?"
            )
        self.restarts += 1
        self._workers[place] = self._start()


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

    def end(self):
        """Stop the process at once."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _work(pipe, setting):
    """A worker's life: receive jobs, send results (or the text of an exception) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
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
            outcome = meta_rollout(environments[num_envs], policy, *job)
        except Exception as error:
            outcome = (
                f"{setting.env_name}: {type(error).__name__}: {error} (tasks from {job.origin.first_task}, "
                f"iteration {job.origin.iteration})\n{traceback.format_exc()}"
            )
        try:
            pipe.send(outcome)
        except OSError:
            return


def _end_with_parent():
    """Leave no orphan: a thread waits for the parent's end and then ends this process, whatever it is doing."""
    parent = multiprocessing.parent_process()

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
