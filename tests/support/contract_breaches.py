"""Environments that each break one point of the contract: `tests.support.contract_breaches:Global-v0`."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from rl.envs.navigation.environment import Navigation
from tests.support.user_environments import Seek, Walk

_SHARED = np.random.default_rng(0)


class Global(Seek):
    """Draws its noise from a generator that no seed reaches."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = _SHARED.normal(size=1).astype(np.float32)
        return self.position, {}


class Crowded(Navigation):
    """Every episode earns what all earn on average."""

    def advance(self, actions):
        rewards, terminated, infos = super().advance(actions)
        return np.full_like(rewards, rewards.mean()), terminated, infos


class Deaf(Walk):
    """Takes no notice of its task."""

    def set_tasks(self, tasks):
        pass


class Outside(Seek):
    """Leaves its observation space."""

    observation_space = Box(-0.1, 0.1, (1,), np.float32)


class Unbounded(Seek):
    """Its reward is infinite where it has not moved far."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, -np.inf if abs(observation[0]) < 0.5 else 0.0, *rest


class Random(Walk):
    """Draws tasks from a generator of its own."""

    def sample_tasks(self, num_tasks, split, rng):
        return super().sample_tasks(num_tasks, split, _SHARED)


class Unending(Navigation):
    """Never ends an episode, whatever its horizon says."""

    def step(self, actions):
        self.elapsed[:] = 0
        return super().step(actions)


class Moving(Navigation):
    """Its episodes go on after their end."""

    def observe(self):
        self.moves = getattr(self, "moves", 0) + 1e-6
        return np.clip(super().observe() + self.moves, -10, 10).astype(np.float32)


class Owner(Navigation):
    """Returns the array in which it keeps its observations."""

    def observe(self):
        self.kept = getattr(self, "kept", np.zeros(self.observation_space.shape, np.float32))
        self.kept[:] = super().observe()
        return self.kept


class Clipping(Navigation):
    """Clips the caller's actions."""

    def step(self, actions):
        return super().step(np.clip(actions, -0.1, 0.1, out=actions))


class Spending(Navigation):
    """Changes the caller's tasks."""

    def assign(self, tasks):
        super().assign(tasks)
        for task in tasks:
            task["used"] = True


class Whole(Navigation):
    """Restarts all episodes, whichever are meant."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


class Fixed(Navigation):
    """One seed stands for the same one in every episode."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=[seed] * self.num_envs if isinstance(seed, int) else seed, options=options)

    def begin(self, which):
        super().begin(which)
        for i in which:
            self.positions[i] = self.generators[i].uniform(-0.1, 0.1, 2)


class Forgetful(Fixed):
    """Without a seed, it begins from anywhere."""

    def reset(self, *, seed=None, options=None):
        seed = _SHARED.integers(2**31, size=self.num_envs).tolist() if seed is None else seed
        return Navigation.reset(self, seed=seed, options=options)


class Precise(Seek):
    """Declares float32 observations and gives float64, which the adapter takes and gymnasium does not."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation.astype(np.float64), info


for scalar in (Global, Deaf, Outside, Unbounded, Random, Precise):
    gymnasium.register(f"{scalar.__name__}-v0", entry_point=scalar, max_episode_steps=20)
for vector in (Crowded, Unending, Moving, Owner, Clipping, Spending, Whole, Fixed, Forgetful):
    gymnasium.register(f"{vector.__name__}-v0", vector_entry_point=vector)
