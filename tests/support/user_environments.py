"""Environments as a user might bring them: `--env-name tests.support.user_environments:Walk-v0`."""

import json
import multiprocessing
import os
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Tuple

from rl.envs.navigation.environment import Navigation
from rl.start import THREAD_COUNTS
from tests.support.malloc import mapped_alone


class Walk(gymnasium.Env):
    """Walk on a line to a hidden place, in steps of 1, 2 or 3 with a random slip; the end is passing it.

    Observations are int16 [2, 1]: the position and the number of steps.
    """

    observation_space = Box(-100, 100, (2, 1), np.int16)
    action_space = Discrete(3, start=1)

    patience = 100

    def __init__(self):
        self.place = 5

    def sample_tasks(self, num_tasks, split, rng):
        return [{"place": int(place)} for place in rng.integers(4, 60, size=num_tasks)]

    def set_tasks(self, tasks):
        (task,) = tasks
        self.place = task["place"]

    def _observation(self):
        return np.array([[self.position], [self.steps]], np.int16)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self._move(int(action))

    def _move(self, stride):
        self.position += stride - int(self.np_random.integers(2))
        self.steps += 1
        given_up = self.steps == self.patience
        return self._observation(), -1.0, self.position >= self.place, given_up, {"steps": self.steps}


class Impatient(Walk):
    """The same, which truncates by itself, before the horizon of its registration."""

    patience = 18


class Reach(Walk):
    """The same with a Box of another shape for actions, float64."""

    action_space = Box(-1.0, 3.0, (1, 2), np.float64)

    def step(self, action):
        assert action.shape == (1, 2) and action.dtype == np.float64
        return self._move(1 if action.sum() > 0 else 2)


class Seek(gymnasium.Env):
    """Walk on a line towards a place; it tells whether it is there. No step is longer than its actions allow."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-0.5, 0.25, (1,), np.float32)

    def sample_tasks(self, num_tasks, split, rng):
        return [{"place": place} for place in rng.uniform(-3, 1, num_tasks).tolist()]

    def set_tasks(self, tasks):
        self.place = tasks[0]["place"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = np.zeros(1, np.float32)
        return self.position, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.position = self.position + action
        distance = abs(self.position[0] - self.place)
        return self.position, -distance, False, False, {"success": distance < 0.3}


class Dull(Seek):
    """Whatever is done earns nothing, so nothing can be learnt; of success it tells only where there is some."""

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 0.0, terminated, truncated, info if info["success"] else {}


class Noting(Seek):
    """Notes, in a file for each process in the folder $NOTES, with what settings the process computes."""

    def __init__(self):
        super().__init__()
        import torch

        settings = {name: os.environ.get(name) for name in THREAD_COUNTS}
        settings |= {"worker": multiprocessing.parent_process() is not None, "torch": torch.get_num_threads()}
        settings |= {"block": mapped_alone()}
        Path(os.environ["NOTES"], f"{os.getpid()}.json").write_text(json.dumps(settings))


class Rooms(gymnasium.Env):
    """Observations and actions of many kinds, frames, and a file of its own: {"reward": …} is what each step earns."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = Dict({
        "camera": Box(0, 255, (1, 2), np.uint8), "room": Discrete(3, start=1), "doors": MultiBinary(2),
        "keys": MultiDiscrete([2, 2]), "place": Tuple([Box(-1, 9, (1,), np.float32)]),
    })  # fmt: skip
    action_space = MultiDiscrete([2, 3], start=[0, 5])

    def __init__(self, env_config_path=None, render_mode=None):
        self.render_mode = render_mode
        self.earns = json.loads(Path(env_config_path).read_text())["reward"] if env_config_path else None

    def sample_tasks(self, num_tasks, split, rng):
        return [{"room": room} for room in rng.integers(1, 4, size=num_tasks).tolist()]

    def set_tasks(self, tasks):
        self.goal = tasks[0]["room"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room, self.last = int(self.np_random.integers(1, 4)), np.array([0, 5])
        return self._observation(), {}

    def _observation(self):
        return {
            "camera": np.array([[51 * self.room, 255]], np.uint8), "room": self.room,
            "doors": np.array([1, 0], np.int8), "keys": np.array([self.last[0], 1]),
            "place": (np.array([self.last[1]], np.float32),),
        }  # fmt: skip

    def step(self, action):
        assert self.action_space.contains(action)
        self.last = action
        self.room = 1 + (self.room + int(action.sum())) % 3
        earned = float(self.room == self.goal) if self.earns is None else self.earns
        return self._observation(), earned, False, False, {}

    def render(self):
        return np.full((30, 20, 3), 80 * self.room, np.uint8)


class Scale(gymnasium.RewardWrapper):
    """What a user might put around an environment: the agent is to learn from scaled rewards."""

    def reward(self, reward):
        return 2.0 * reward


class Untrue(Seek):
    """A step that gives something else than is declared, which the task names: {"gives": [what, value]}."""

    def set_tasks(self, tasks):
        self.gives = dict([tasks[0]["gives"]]) if "gives" in tasks[0] else {}
        self.place = 0.0

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return self.gives.get("first observation", observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        info = {"success": self.gives["success"]} if "success" in self.gives else info
        gives = self.gives.get
        return gives("observation", observation), gives("reward", reward), terminated, truncated, info


class Taskless(gymnasium.Env):
    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(2)


class Listed(Walk):
    """An observation of any length."""

    observation_space = Sequence(Box(0, 1, (1,), np.float32))


class Switches(Walk):
    """Actions that no policy here has."""

    action_space = Dict({"left": Discrete(2)})


class Careless(Walk):
    """Tasks of which JSON knows nothing."""

    def sample_tasks(self, num_tasks, split, rng):
        return [{"place": place} for place in rng.integers(4, 60, size=num_tasks)]


class Short(Walk):
    """One task, however many are asked for."""

    def sample_tasks(self, num_tasks, split, rng):
        return [{"place": 4}]


class Untested(Walk):
    """Has no tasks to test on."""

    def sample_tasks(self, num_tasks, split, rng):
        return super().sample_tasks(num_tasks, split, rng) if split == "train" else None


class Tiring(Walk):
    """Runs out of tasks, after those for two iterations with an evaluation each."""

    left = 6

    def sample_tasks(self, num_tasks, split, rng):
        Tiring.left -= 1
        return super().sample_tasks(num_tasks if Tiring.left >= 0 else 0, split, rng)


class ShortVector(Navigation):
    """A vector environment with one task, however many are asked for."""

    def sample_tasks(self, num_tasks, split, rng):
        return super().sample_tasks(1, split, rng)


class Doubles(Navigation):
    """A vector environment with float64 observations."""

    def __init__(self, num_envs):
        super().__init__(num_envs)
        self.single_observation_space = Box(-10, 10, (2,), np.float64)


class Lonely(Navigation):
    """A vector environment that tells the first episode's observation alone."""

    def reset(self, **options):
        observations, infos = super().reset(**options)
        return observations[0], infos

    def step(self, actions):
        observations, *others = super().step(actions)
        return observations[0], *others


class Autoreset(Navigation):
    """A vector environment that restarts by itself."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}


class TasklessVector(gymnasium.vector.VectorEnv):
    """A vector environment whose tasks cannot be set; `Walk` stands behind it."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}

    def __init__(self, num_envs, max_episode_steps):
        self.num_envs = num_envs


class Once(gymnasium.vector.VectorEnv):
    """A vector environment that is told of no more than gymnasium asks for: episode i ends at its step i + 3, which it
    reports once, and goes on.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}

    def __init__(self, num_envs, max_episode_steps):
        self.num_envs, self.horizon, self.steps = num_envs, max_episode_steps, 0
        self.single_observation_space, self.single_action_space = Box(-1, 1, (1,), np.float32), Discrete(2)

    def sample_tasks(self, num_tasks, split, rng):
        return [{"goal": int(goal)} for goal in rng.integers(5, size=num_tasks)]

    def set_tasks(self, tasks):
        pass

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        self.steps += 1
        ended = self.steps == np.arange(self.num_envs) + 3
        shown = np.full((self.num_envs, 1), self.steps / 10, np.float32)
        return shown, np.ones(self.num_envs), ended, np.full(self.num_envs, self.steps == self.horizon), {}


for scalar in (
    Walk, Impatient, Reach, Seek, Dull, Noting, Untrue, Taskless, Listed, Switches, Careless, Short, Untested, Tiring,
    Rooms,
):  # fmt: skip
    gymnasium.register(f"{scalar.__name__}-v0", entry_point=scalar, max_episode_steps=20)
for vector in (ShortVector, Doubles, Lonely, Autoreset):
    gymnasium.register(f"{vector.__name__}-v0", vector_entry_point=vector)
gymnasium.register("Once-v0", vector_entry_point=Once, max_episode_steps=12)
gymnasium.register("Scaled-v0", entry_point=lambda: Scale(Seek()), max_episode_steps=20)
gymnasium.register("Endless-v0", entry_point=Walk)
gymnasium.register("OwnVector-v0", vector_entry_point=Navigation)
gymnasium.register("OwnHorizon-v0", vector_entry_point=Navigation, max_episode_steps=100)
gymnasium.register("OtherHorizon-v0", vector_entry_point=Navigation, max_episode_steps=20)
gymnasium.register("Both-v0", entry_point=Walk, vector_entry_point=TasklessVector, max_episode_steps=20)
gymnasium.register("TasklessVector-v0", vector_entry_point=TasklessVector, max_episode_steps=20)
