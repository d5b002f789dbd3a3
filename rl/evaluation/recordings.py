"""What an evaluation records besides returns: contexts, episodes, and what the hidden units did."""

import json

import numpy as np
import torch

from rl import streams
from rl.errors import UserError
from rl.evaluation.evaluate import replay
from rl.evaluation.task_choice import distinct
from rl.files import load_arrays, write_text

PROBE_SIZE = 256  # observations


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


def write(folder, parts, params, tasks, phases, num_episodes, probe=None):
    """Write contexts.npy (where there is a context), activations.npy with activations.json, and probe.npz.

    Contexts and activations are computed again from what was sampled, a few tasks at a time:
    - contexts.npy: φ [tasks, updates + 1, C];
    - activations.npy: [tasks, steps, episodes, updates + 1, units], zero after an episode's end; activations.json
      names its axes and units;
    - probe.npz: the same activations for the same observations whatever the task: `observations` [N, O] and, for each
      activation, [D, updates + 1, N, units] of the D `tasks` (their numbers) that `task_choice.distinct` chooses.

    Args:
        folder: where.
        parts: `rl.experiment.build.Parts`.
        params: θ.
        tasks: the tasks of the evaluation.
        phases: `Phases` of the evaluation.
        num_episodes: how many episodes of each task; none writes the contexts alone.
        probe: observations [N, O]; None draws 256 steps of the chosen tasks' episodes of all phases, without
            replacement.
    """
    policy, size = parts.policy, shape(parts, num_episodes)
    if not num_episodes and not policy.architecture.num_context_params:
        return
    names = [name for name, _ in columns(policy)]
    contexts = np.zeros((size[0], size[3], policy.architecture.num_context_params), np.float32)
    if num_episodes:
        written = np.lib.format.open_memmap(folder / "activations.npy", "w+", np.float32, size)
        chosen = distinct(tasks)
        probe = draw_probe(parts.config.seed, phases, chosen) if probe is None else probe
        probed = {name: np.zeros((len(chosen), size[3], len(probe), units), np.float32)
                  for name, units in columns(policy)}  # fmt: skip
    for start in range(0, size[0], parts.config.tasks_per_group):
        group = slice(start, min(start + parts.config.tasks_per_group, size[0]))
        for updates, (episodes, adapted) in enumerate(
            replay(policy, params, phases.tasks(group.start, group.stop), parts.evaluation())
        ):
            if adapted.context is not None:
                contexts[group, updates] = adapted.context.detach().numpy()
            if not num_episodes:
                continue
            seen = torch.from_numpy(episodes.observations[:, :, :num_episodes]).flatten(1, 2)
            record = recorded(policy, adapted, seen)
            mask = episodes.mask[:, :, :num_episodes, None]
            joined = np.concatenate([record[name] for name in names], axis=-1)
            written[group, :, :, updates] = joined.reshape(*mask.shape[:3], -1) * mask
            here = [(place, task - start) for place, task in enumerate(chosen) if group.start <= task < group.stop]
            if here:
                record = recorded(policy, adapted, torch.from_numpy(probe).expand(mask.shape[0], -1, -1))
                for place, row in here:
                    for name in names:
                        probed[name][place, updates] = record[name][row]
    if contexts.size:
        np.save(folder / "contexts.npy", contexts)
    if num_episodes:
        written.flush()
        layout = {"axes": ["task", "step", "episode", "updates", "unit"], "units": columns(policy)}
        write_text(folder / "activations.json", json.dumps(layout, indent=2) + "\n")
        np.savez(folder / "probe.npz", observations=probe, tasks=np.array(chosen), **probed)


def recorded(policy, adapted, observations):
    """The policy's activations at observations [K, N, O]: name -> array [K, N, units]."""
    record = {}
    with torch.no_grad():
        policy(adapted.params, adapted.context, observations, record)
    return {name: values.numpy() for name, values in record.items()}


def draw_probe(seed, phases, chosen):
    """Observations [N, O] of steps drawn uniformly, without replacement, from all phases of the chosen tasks."""
    pooled = np.concatenate([episodes.observations[chosen][episodes.mask[chosen] > 0] for episodes in phases.episodes])
    rng = streams.generator(streams.key(seed, purpose=streams.PROBE))
    return pooled[np.sort(rng.choice(len(pooled), min(PROBE_SIZE, len(pooled)), replace=False))]


def read_probe(folder, policy):
    """The probe observations of another evaluation.

    Raises:
        UserError: there are none, or they are another environment's.
    """
    path = folder / "probe.npz"
    if not path.is_file():
        raise UserError(f"--probe {folder}: expected an evaluation with activations, found no probe.npz in it")
    observations = load_arrays(path, "an evaluation's probe", ["observations"])["observations"]
    size = policy.architecture.observation_size
    if observations.shape[1:] != (size,):
        raise UserError(f"{path}: expected observations of size {size}, found {observations.shape[1]}")
    return observations


def write_episodes(folder, phases, num_episodes):
    """Write episodes.npz: `observations`, `actions`, `mask` and each of the environment's infos as `info.<name>`.

    Args:
        folder: where.
        phases: sequence of U + 1 `Episodes`.
        num_episodes: how many episodes of each task; none writes nothing. Arrays are [tasks, steps, episodes,
            updates + 1, ...].
    """
    if not num_episodes:
        return
    arrays = {name: [getattr(episodes, name) for episodes in phases] for name in ("observations", "actions", "mask")}
    for name in phases[0].infos:
        arrays[f"info.{name}"] = [episodes.infos[name] for episodes in phases]
    np.savez(
        folder / "episodes.npz",
        **{name: np.stack([values[:, :, :num_episodes] for values in found], axis=3)
           for name, found in arrays.items()},
    )  # fmt: skip
