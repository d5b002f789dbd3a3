"""Environments that misbehave on request, for tests of the sampler: `tests.support.broken_env:Obstinate-v0`."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box

HORIZON = 4


class Obstinate(gymnasium.Env):
    """Rewards are noise from the episode's own stream; a task says what else happens in a step.

    {"dies": path, "times": n}: kills its own process, n times in all (counted by the size of the file at path), with
        the signal "by" (default SIGKILL) or the exit status "status".
    {"raises": text}: an exception.
    {"sleeps": seconds}: takes so long.
    {"closes": path}: appends a letter to path when it is closed.
    {"waits": path}: writes its process id to path and waits until there is a file named path.go.
    """

    def __init__(self):
        self.observation_space = Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.task = {}

    def sample_tasks(self, num_tasks, split, rng):
        raises = os.environ.get("OBSTINATE_RAISES")
        return [{"raises": raises} if raises else {} for _ in range(num_tasks)]

    def set_tasks(self, tasks):
        (self.task,) = tasks

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action):
        if "dies" in self.task:
            path = Path(self.task["dies"])
            deaths = path.stat().st_size if path.exists() else 0
            if deaths < self.task["times"]:
                path.write_text("x" * (deaths + 1))
                if "status" in self.task:
                    os._exit(self.task["status"])
                os.kill(os.getpid(), self.task.get("by", signal.SIGKILL))
        if self.task.get("raises"):
            raise ArithmeticError(self.task["raises"])
        time.sleep(self.task.get("sleeps", 0.0))
        if "waits" in self.task:
            path = Path(self.task["waits"])
            path.write_text(str(os.getpid()))
            while not path.with_suffix(".go").exists():
                time.sleep(0.01)
        observation = self.np_random.normal(size=2).astype(np.float32)
        return observation, float(self.np_random.normal() + action[0]), False, False, {}

    def close(self):
        if "closes" in self.task:
            with open(self.task["closes"], "a", encoding="utf-8") as file:
                file.write("x")


class Taskless(gymnasium.Env):
    """Cannot change its task."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)


LEAVING = """
import sys, gymnasium
from tests.support.user_environments import Walk
def leave(place):
    if place == "{where}": sys.exit(0)
leave("import")
class Leaving(Walk):
    def __init__(self):
        leave("constructor")
        super().__init__()
    def sample_tasks(self, *arguments):
        leave("sample_tasks")
        return super().sample_tasks(*arguments)
    def set_tasks(self, tasks):
        leave("set_tasks")
        super().set_tasks(tasks)
    def reset(self, **options):
        leave("reset")
        return super().reset(**options)
    def step(self, action):
        leave("step")
        return super().step(action)
gymnasium.register("Leaving-{where}-v0", entry_point=Leaving, max_episode_steps=20)
"""


def leaving(folder, where):
    """Write a module into a folder whose environment ends the program at one of the places above; its name."""
    module = f"leaving_in_{where}"
    (folder / f"{module}.py").write_text(LEAVING.format(where=where), encoding="utf-8")
    return f"{module}:Leaving-{where}-v0"


gymnasium.register("Obstinate-v0", entry_point=Obstinate, max_episode_steps=HORIZON)
gymnasium.register("BrokenTaskless-v0", entry_point=Taskless, max_episode_steps=HORIZON)
