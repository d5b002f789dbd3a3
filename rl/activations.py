"""What the hidden units of a policy did in an evaluation."""

import json

import numpy as np
import torch

from rl.checkpoint import write_text
from rl.evaluation import replay


def columns(policy):
    """What the last axis of activations.npy holds, in order: [(name of the activation, its number of units)]."""
    sizes = policy.architecture
    found = []
    for name, size in zip(policy.layer_names, sizes.hidden_sizes, strict=True):
        if sizes.nm_gate:
            found += [(f"{name}.modulators", sizes.nm_size), (f"{name}.gates", size)]
        found.append((f"{name}.output", size))
    return found


def shape(parts, num_episodes):
    """The shape of activations.npy: (tasks, steps, episodes, updates, units); its entries are float32."""
    config = parts.config
    units = sum(size for _, size in columns(parts.policy))
    return config.test_batch_size, parts.env.horizon, num_episodes, config.num_test_steps + 1, units


def write(folder, parts, params, phases, num_episodes):
    """Write activations.npy (zero after an episode's end) and activations.json, which names its axes and units.

    The activations are computed again from what was sampled, a few tasks at a time, straight into the file.

    Args:
        folder: where.
        parts: `rl.build.Parts`.
        params: θ.
        phases: `Phases` of the evaluation.
        num_episodes: how many episodes of each task; none writes nothing.
    """
    if not num_episodes:
        return
    size = shape(parts, num_episodes)
    names = [name for name, _ in columns(parts.policy)]
    written = np.lib.format.open_memmap(folder / "activations.npy", "w+", np.float32, size)
    for start in range(0, size[0], parts.config.tasks_per_group):
        tasks = slice(start, min(start + parts.config.tasks_per_group, size[0]))
        for updates, (episodes, adapted) in enumerate(
            replay(parts.policy, params, phases.tasks(tasks.start, tasks.stop), parts.evaluation())
        ):
            seen = torch.from_numpy(episodes.observations[:, :, :num_episodes]).flatten(1, 2)
            record = {}
            with torch.no_grad():
                parts.policy(adapted.params, adapted.context, seen, record)
            joined = torch.cat([record[name] for name in names], dim=-1).numpy()
            mask = episodes.mask[:, :, :num_episodes, None]
            written[tasks, :, :, updates] = joined.reshape(*mask.shape[:3], -1) * mask
    written.flush()
    layout = {"axes": ["task", "step", "episode", "updates", "unit"], "units": columns(parts.policy)}
    write_text(folder / "activations.json", json.dumps(layout, indent=2) + "\n")
