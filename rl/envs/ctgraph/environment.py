"""CTgraphEnvGoalChange-v0: the configurable tree graph (arXiv 2302.10887), a tree walked from home to one of bᵈ leaves.

The package gym-CTgraph 1.0 is the definition, but for the two settings named in `ctgraph_config.parse`: the same
configuration and actions give the same observations, rewards and ends. Its noise has the same distribution, from
streams of our own.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Float, Float32, Int

from rl.envs.base import Step, Task, TaskVectorEnv
from rl.envs.ctgraph import config as ctgraph_config
from rl.envs.ctgraph import images
from rl.envs.ctgraph.config import CTGraphConfig
from rl.errors import UserError

# State types, with the numbers of the package.
HOME, WAIT, DECISION, LEAF, CRASH = range(5)


def _next_states() -> Int[np.ndarray, "5 2 2"]:
    """The tree's rules: state type after [state type, all decisions taken, action > 0], without delays."""
    after = np.empty((5, 2, 2), np.int64)
    after[HOME] = WAIT
    after[WAIT, 0] = DECISION, CRASH
    after[WAIT, 1] = LEAF, CRASH
    after[DECISION] = CRASH, WAIT
    after[LEAF] = HOME
    after[CRASH] = CRASH
    return after


class CTGraph(TaskVectorEnv):
    """N walks through the tree; a task is {"leaf": i}, the goal leaf, counted from the left: 0 ≤ i < bᵈ.

    home → wait → decision → wait → … → decision → wait → leaf → home (end). Action 0 is right in wait states, 1…b
    choose a branch in decision states; the wrong kind crashes: `crash_reward`, end. A leaf pays on arrival, and the
    step after that ends the episode.

    `infos` of a step: "state_type" (HOME…CRASH) and "node": the tree's nodes counted level by level from the root 0, so
    that the children of n are b·n + 1 … b·n + b.

    Observations are the package's pixels / 255, flattened; a leaf's shows the reward (last entry, or a central square).

    Args:
        num_envs: N.
        config: a `CTGraphConfig`, or the path of a JSON file.
    """

    pictures = "rl.envs.ctgraph.pictures"

    def __init__(self, num_envs: int, config: CTGraphConfig | str | Path | None = None):
        if not isinstance(config, CTGraphConfig):
            config = _read("CTgraphEnvGoalChange-v0", config)
        self.config = config
        self.images = images.image_set(config)
        super().__init__(
            num_envs,
            single_observation_space=Box(0.0, 1.0, (self.images.shape[-1],), np.float32),
            single_action_space=Discrete(config.branching + 1),
            horizon=config.horizon,
        )
        if config.noise == 0:
            self.num_observations = len(self.images) * config.num_images  # and leaves, which show their rewards
        self.num_leaves = config.num_leaves
        self.first_leaf = config.num_decisions
        self.next_states = _next_states()
        self.fixed_image, self.random_image, self.subset_first, self.subset_size = _observation_tables(config)
        self.cue_pixels = images.cue_pixels(config)
        # Digits of a leaf's number in base b: its path, first decision first.
        self.paths = np.stack(np.unravel_index(np.arange(self.num_leaves), (config.branching,) * config.depth), axis=1)

        self.rows = np.arange(num_envs)
        self.goals = np.zeros(num_envs, np.int64)
        self.state_types = np.zeros(num_envs, np.int64)
        self.nodes = np.zeros(num_envs, np.int64)
        self.cues = np.zeros(num_envs, np.uint8)
        self._make_room_for_draws()

    @classmethod
    def read_options(
        cls, name: str, config_path: str | Path | None = None, seed: int = 0, horizon: int | None = None
    ) -> dict[str, Any]:
        """{"config": the `CTGraphConfig` in the file}.

        Raises:
            UserError: no file is named, or what it holds is no right configuration.
        """
        return {"config": _read(name, config_path)} | super().read_options(name, horizon=horizon)

    @classmethod
    def describe(cls, name: str, config_path: str | Path) -> str:
        """The name and the depth, and the branching where that is not 2."""
        config = ctgraph_config.read(config_path)
        branching = "" if config.branching == 2 else f" branching {config.branching}"
        return f"{name} depth {config.depth}{branching}"

    @classmethod
    def success(cls, rewards: Float[np.ndarray, "K T E U"]) -> Bool[np.ndarray, "K E U"] | None:
        """Only the goal leaf of a `needle_in_haystack` gives a positive reward; None where there are several ones."""
        highest = rewards.max(axis=1)
        return None if len(np.unique(highest[highest > 0])) > 1 else highest > 0

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """Goal leaves, uniform, the same for both splits."""
        return [{"leaf": leaf} for leaf in rng.integers(self.num_leaves, size=num_tasks).tolist()]

    def safe_actions(self) -> Bool[np.ndarray, "N A"]:
        """Waiting in a wait state, the branches in a decision state, and anything else where nothing can go wrong."""
        safe = np.ones((self.num_envs, self.config.branching + 1), bool)
        safe[self.state_types == WAIT, 1:] = False
        safe[self.state_types == DECISION, 0] = False
        return safe

    def assign(self, tasks: list[Task]) -> None:
        """Take over the goal leaves."""
        leaves = [task["leaf"] for task in tasks]
        if not all(isinstance(leaf, int) and 0 <= leaf < self.num_leaves for leaf in leaves):
            raise ValueError(f"CT-graph: a leaf is an integer from 0 to {self.num_leaves - 1}")
        self.goals = np.array(leaves, np.int64)

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Go home, and draw all that the episodes may need: a step then draws nothing."""
        self.state_types[which] = HOME
        self.nodes[which] = 0
        if not self.draws_anything:
            return
        config, reads = self.config, self.horizon + 1
        for i in which:
            generator = self.generators[i]
            if self.delays is not None:
                self.delays[i] = generator.geometric(1.0 - config.delay_probability, config.depth + 1) - 1
            if self.reward_noise is not None:
                self.reward_noise[i] = config.reward_std * generator.standard_normal()
            if self.choices is not None:
                self.choices[i] = generator.random(reads)
            if self.angles is not None:
                self.angles[i] = generator.integers(config.rotation, size=reads)
            if self.pixel_noise is not None:
                size = (reads, self.pixel_noise.shape[-1])
                self.pixel_noise[i] = generator.integers(config.noise, size=size, dtype=np.uint8, endpoint=True)

    def advance(self, actions: Int[np.ndarray, "N"]) -> Step:
        """Walk one step."""
        running, state_types, nodes = self.running, self.state_types, self.nodes
        turns = actions > 0
        at_bottom = nodes >= self.first_leaf
        following = self.next_states[state_types, at_bottom.view(np.int8), turns.view(np.int8)]
        if self.delays is not None:
            level = np.searchsorted(self.level_ends, nodes, side="right")
            held = (state_types == WAIT) & ~turns & (self.delays[self.rows, level] > 0)
            self.delays[self.rows, level] -= held
            following[held] = WAIT
        chose = running & (state_types == DECISION) & turns
        ended_home = running & (state_types == LEAF)
        self.nodes = np.where(chose, nodes * self.config.branching + actions, np.where(ended_home, 0, nodes))
        self.state_types = np.where(running, following, state_types)

        crashed = self.state_types == CRASH
        rewards = np.where(crashed, self.config.crash_reward, 0.0)
        arrived = np.flatnonzero(running & (self.state_types == LEAF))
        if arrived.size:
            rewards[arrived] = self._pay(arrived)
        return rewards, crashed | ended_home, {"state_type": self.state_types.copy(), "node": self.nodes.copy()}

    def observe(self) -> Float32[np.ndarray, "N pixels"]:
        """The images of the present states, in [0, 1]."""
        numbers = self._image_numbers()
        elapsed = self.elapsed
        if self.pixel_noise is not None:
            pixels = self.images[0, numbers] + self.pixel_noise[self.rows, elapsed]
            if self.angles is not None:
                pixels = images.rotate_each(pixels, self.angles[self.rows, elapsed])
        else:
            pixels = self.images[0 if self.angles is None else self.angles[self.rows, elapsed], numbers]
        painted = np.flatnonzero(self.state_types == LEAF)
        if painted.size:
            pixels[painted[:, None], self.cue_pixels] = self.cues[painted, None]
        return images.LEVELS.take(pixels)

    def _make_room_for_draws(self) -> None:
        """One array for every kind of randomness that the configuration has, None for the others."""
        config, count, reads = self.config, self.num_envs, self.horizon + 1
        self.delays = np.zeros((count, config.depth + 1), np.int64) if config.delay_probability > 0 else None
        self.level_ends = np.cumsum(config.branching ** np.arange(config.depth + 1))
        self.reward_noise = np.zeros(count) if config.reward_std > 0 else None
        self.choices = np.zeros((count, reads)) if self.random_image.any() else None
        turned = not config.one_dimensional and config.rotation > 1
        self.angles = np.zeros((count, reads), np.int64) if turned else None
        self.pixel_noise = np.zeros((count, reads, self.images.shape[-1]), np.uint8) if config.noise > 0 else None
        draws = (self.delays, self.reward_noise, self.choices, self.angles, self.pixel_noise)
        self.draws_anything = any(room is not None for room in draws)

    def _image_numbers(self) -> Int[np.ndarray, "N"]:
        """Which image each episode sees."""
        numbers = self.fixed_image[self.state_types, self.nodes]
        if self.choices is None:
            return numbers
        drawn = self.choices[self.rows, self.elapsed] * self.subset_size[self.state_types]
        random_numbers = self.subset_first[self.state_types] + drawn.astype(np.int64)
        return np.where(self.random_image[self.state_types], random_numbers, numbers)

    def _pay(self, arrived: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
        """Rewards of the episodes `arrived` that have just reached a leaf; their cues are set, too."""
        config = self.config
        leaves, goals = self.nodes[arrived] - self.first_leaf, self.goals[arrived]
        if config.reward_distribution == "needle_in_haystack":
            scores = (leaves == goals).astype(np.float64)
        else:
            # Σ wᵢ (1 − |goalᵢ − pathᵢ|) / Σ wᵢ with w = d, d−1, …, 1: early decisions count more.
            weights = np.arange(config.depth, 0, -1)
            scores = (1 - np.abs(self.paths[goals] - self.paths[leaves])) @ weights / weights.sum()
        rewards = config.high_reward * scores
        if self.reward_noise is not None:
            rewards = rewards + rewards * self.reward_noise[arrived]
        # The package casts to uint8 without clipping: a reward above high_reward, or below 0, wraps around.
        intensity = images.high_value(config) * (rewards / config.high_reward)
        self.cues[arrived] = intensity.astype(np.int64).astype(np.uint8)
        return rewards


def _read(name: str, config_path: str | Path | None) -> CTGraphConfig:
    """The configuration in a file, which has to be there."""
    if config_path is None:
        example = os.path.relpath(Path(__file__).with_name("ctgraph_d2.json"))
        raise UserError(f"environment {name} needs a configuration file: --env-config-path {example}")
    return ctgraph_config.read(config_path)


def _observation_tables(
    config: CTGraphConfig,
) -> tuple[Int[np.ndarray, "5 nodes"], Bool[np.ndarray, "5"], Int[np.ndarray, "5"], Int[np.ndarray, "5"]]:
    """Which image a state shows, by state type: (fixed_image, random_image, subset_first, subset_size)."""
    subsets = np.array([(0, 0), config.wait_images, config.decision_images, config.leaf_images, (1, 1)])
    first, size = subsets[:, 0], subsets[:, 1] - subsets[:, 0] + 1
    # The package numbers the node at the end of path x (read in base b) on level c as bᶜ + x − 1, modulo the size of
    # the subset; for b > 2 this leaves gaps, so that some states share an image.
    level_sizes = config.branching ** np.arange(config.depth + 1)
    order = np.concatenate([np.arange(count) + count - 1 for count in level_sizes])
    fixed_image = first[:, None] + order % size[:, None]
    anything_fixed = config.mdp_waits or config.mdp_decisions
    random_image = np.array([False, not config.mdp_waits, not config.mdp_decisions, not anything_fixed, False])
    return fixed_image, random_image, first, size
