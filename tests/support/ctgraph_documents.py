"""CT-graph configurations as JSON holds them, for the tests."""

import json
from pathlib import Path

import numpy as np

import rl.envs.ctgraph
from rl.envs.ctgraph import config as ctgraph_config
from rl.envs.ctgraph.environment import CTGraph

FOLDER = Path(rl.envs.ctgraph.__file__).parent
SHIPPED = ["ctgraph_d2", "ctgraph_d3", "ctgraph_d4", "ctgraph_d2_b3"]

# Two samples are called different below this p-value: one false alarm in a thousand, had the seeds not been fixed.
SIGNIFICANCE = 1e-3


def document(name="ctgraph_d2", **changes):
    """A shipped configuration as JSON holds it, changed by section: document(reward={"reward_std": 0.5})."""
    parsed = json.loads((FOLDER / f"{name}.json").read_text())
    for section, entries in changes.items():
        assert entries.keys() <= parsed[section].keys()
        parsed[section] |= entries
    return parsed


def make(parsed, num_envs):
    return CTGraph(num_envs, ctgraph_config.parse(parsed, "test"))


NOISY = {
    "graph_shape": {"delay_prob": 0.3},
    "reward": {"stochastic_sampling": True, "reward_std": 0.1, "reward_distribution": "linear"},
    "observations": {"MDP_delays": False, "MDP_decisions": False},
    "image_dataset": {"1D": False, "noise_on_images_on_read": 20, "small_rotation_on_read": 30},
}


# The names of 2021 -> those of its later form, and those of gym-CTgraph 1.0, where they differ.
LATER_2021 = {
    "delay_prob": "wait_prob",
    "MDP_delays": "MDP_wait_s",
    "MDP_decisions": "MDP_decision_s",
    "delay_states": "wait_states",
    "decision_points": "decision_states",
}
VERSION_1 = {
    "depth": "d",
    "branching_factor": "b",
    "delay_prob": "p",
    "high_reward_value": "high_r",
    "crash_reward_value": "fail_r",
    "reward_std": "std_r",
    "MDP_delays": "MDP_W",
    "MDP_decisions": "MDP_D",
    "delay_states": "W_IDs",
    "decision_points": "D_IDs",
    "noise_on_images_on_read": "noise_on_read",
    "small_rotation_on_read": "rotation_on_read",
}


def renamed(parsed, names):
    """The same configuration with other names for its keys."""
    if not isinstance(parsed, dict):
        return parsed
    return {names.get(name, name): renamed(value, names) for name, value in parsed.items()}


def for_package(parsed):
    """A configuration of 2021 in the dialect of 1.0, whose reward noise is off only at standard deviation 0."""
    theirs = renamed(parsed, VERSION_1)
    if not theirs["reward"].pop("stochastic_sampling"):
        theirs["reward"]["std_r"] = 0.0
    return theirs


def every_walk(depth, branching):
    """The right actions to each leaf in turn: any, 0, choice, 0, choice, …, 0, any; [2d + 3, leaves]."""
    paths = np.stack(np.unravel_index(np.arange(branching**depth), (branching,) * depth))
    actions = np.zeros((2 * depth + 3, paths.shape[1]), np.int64)
    actions[2:-2:2] = paths + 1
    return actions
