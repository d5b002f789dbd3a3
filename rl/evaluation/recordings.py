"""What an evaluation records besides returns: contexts, episodes, and what the hidden units did."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from rl import streams
from rl.algorithm.inner_loop import Adapted
from rl.errors import UserError
from rl.evaluation.evaluate import replay
from rl.evaluation.task_choice import distinct
from rl.files import array_file, load_arrays, save_array, save_arrays, write_text
from rl.policies.mlp import MLPPolicy
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import AdaptationPlan, Rollouts

PROBE_SIZE = 256  # observations


def columns(policy: MLPPolicy) -> list[tuple[str, int]]:
    """What the last axis of activations.npy holds, in order: [(name of the activation, its number of units)]."""
    sizes = policy.architecture
    units = []
    for name, size in zip(policy.layer_names, sizes.hidden_sizes, strict=True):
        if sizes.nm_gate:
            units += [(f"{name}.modulators", sizes.nm_size), (f"{name}.gates", size)]
        units.append((f"{name}.output", size))
    return units


def shape(
    policy: MLPPolicy, num_tasks: int, num_steps: int, num_episodes: int, num_updates: int
) -> tuple[int, int, int, int, int]:
    """The shape of activations.npy: (tasks, steps, episodes, updates + 1, units); its entries are float32."""
    return num_tasks, num_steps, num_episodes, num_updates + 1, sum(size for _, size in columns(policy))


def write(
    folder: Path,
    policy: MLPPolicy,
    params: dict[str, torch.Tensor],
    tasks: Sequence[dict[str, Any]],
    rollouts: Rollouts,
    plan: AdaptationPlan,
    group_size: int,
    num_episodes: int,
    probe: Float[np.ndarray, "N O"] | None,
) -> None:
    """Write contexts.npy (where there is a context), activations.npy with activations.json, and probe.npz.

    Contexts and activations are computed again from what was sampled, a few tasks at a time:
    - contexts.npy: φ [tasks, updates + 1, C];
    - activations.npy: [tasks, steps, episodes, updates + 1, units], zero after an episode's end; activations.json
      names its axes and units;
    - probe.npz: the same activations for the same observations whatever the task: `observations` [N, O] and, for each
      activation, [D, updates + 1, N, units] of the D `tasks` (their numbers) that `task_choice.distinct` chooses.

    Args:
        folder: where.
        policy: of any kind.
        params: θ.
        tasks: all of them.
        rollouts: their episodes, sampled with θ.
        plan: how they were sampled.
        group_size: how many tasks are computed at once.
        num_episodes: how many episodes of each task; none writes the contexts alone.
        probe: its observations; unused without episodes.
    """
    size = shape(policy, len(tasks), rollouts.episodes[0].mask.shape[1], num_episodes, len(plan.learning_rates))
    contexts = np.zeros((size[0], size[3], policy.architecture.num_context_params), np.float32)
    if not num_episodes and not contexts.size:
        return
    with contextlib.ExitStack() as files:
        activations = None
        if num_episodes and probe is not None:
            file = files.enter_context(array_file(folder / "activations.npy", np.float32, size))
            activations = _Activations(policy, size, file, probe, distinct(tasks))
        for start in range(0, size[0], group_size):
            group = slice(start, min(start + group_size, size[0]))
            for updates, (episodes, adapted) in enumerate(
                replay(policy, params, rollouts.tasks(group.start, group.stop), plan)
            ):
                if adapted.context is not None:
                    contexts[group, updates] = adapted.context.detach().numpy()
                if activations:
                    activations.add(group, updates, episodes, adapted)
    if contexts.size:
        save_array(folder / "contexts.npy", contexts)
    if activations:
        layout = {"axes": ["task", "step", "episode", "updates", "unit"], "units": columns(policy)}
        write_text(folder / "activations.json", json.dumps(layout, indent=2) + "\n")
        save_arrays(folder / "probe.npz", activations.probed)


class _Activations:
    """Activations of episodes, into a file as they come, and those at the probe, kept.

    Args:
        policy: whose.
        size: the file's shape, as `shape`.
        file: an `array_file`.
        probe: its observations.
        chosen: numbers of the tasks of the probe.

    Attributes:
        probed: what probe.npz holds.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        size: tuple[int, int, int, int, int],
        file: Any,
        probe: Float[np.ndarray, "N O"],
        chosen: list[int],
    ) -> None:
        self._policy, self._size, self._file, self._chosen = policy, size, file, chosen
        self._probe = torch.from_numpy(probe)
        self.probed = {"observations": probe, "tasks": np.array(chosen)}
        for name, units in columns(policy):
            self.probed[name] = np.zeros((len(chosen), size[3], len(probe), units), np.float32)

    def add(self, group: slice, updates: int, episodes: Episodes, adapted: Adapted) -> None:
        """Take a group of tasks after a number of updates, one after the other from 0 to all.

        Args:
            group: the tasks' numbers.
            updates: how many.
            episodes: of these tasks.
            adapted: the policies that sampled them.
        """
        names = [name for name, _ in columns(self._policy)]
        num_tasks, num_episodes = group.stop - group.start, self._size[2]
        if updates == 0:
            self._block = np.zeros((num_tasks, *self._size[1:]), np.float32)
        seen = torch.from_numpy(episodes.observations[:, :, :num_episodes]).flatten(1, 2)
        record = recorded(self._policy, adapted, seen)
        mask = episodes.mask[:, :, :num_episodes, None]
        joined = np.concatenate([record[name] for name in names], axis=-1)
        self._block[:, :, :, updates] = joined.reshape(*mask.shape[:3], -1) * mask
        here = [(place, task - group.start) for place, task in enumerate(self._chosen)
                if group.start <= task < group.stop]  # fmt: skip
        if here:
            record = recorded(self._policy, adapted, self._probe.expand(num_tasks, -1, -1))
            for place, row in here:
                for name in names:
                    self.probed[name][place, updates] = record[name][row]
        # In the file, the updates of a step lie side by side.
        if updates == self._size[3] - 1:
            self._file.write(self._block)


def recorded(
    policy: MLPPolicy, adapted: Adapted, observations: Float[torch.Tensor, "K N O"]
) -> dict[str, Float[np.ndarray, "K N _"]]:
    """The policy's activations at observations, by name."""
    record: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        policy(adapted.params, adapted.context, observations, record)
    return {name: values.numpy() for name, values in record.items()}


def draw_probe(seed: int, rollouts: Rollouts, chosen: Sequence[int]) -> Float[np.ndarray, "N O"]:
    """Observations of 256 steps, or all where there are fewer, drawn uniformly, without replacement, from all
    episodes of the chosen tasks.
    """
    pooled = np.concatenate(
        [episodes.observations[chosen][episodes.mask[chosen] > 0] for episodes in rollouts.episodes]
    )
    rng = streams.generator(streams.key(seed, purpose=streams.PROBE))
    return pooled[np.sort(rng.choice(len(pooled), min(PROBE_SIZE, len(pooled)), replace=False))]


def read_probe(folder: Path, policy: MLPPolicy) -> Float[np.ndarray, "N O"]:
    """The probe observations of another evaluation.

    Raises:
        UserError: there are none, or they are another environment's.
    """
    path = folder / "probe.npz"
    if not path.is_file():
        raise UserError(f"--probe {folder}: expected an evaluation with activations, found no probe.npz in it")
    schema = {"observations": Float32[np.ndarray, "N O"]}
    return load_arrays(path, "an evaluation's probe", schema, O=policy.architecture.observation_size)["observations"]


def write_episodes(folder: Path, rollouts: Sequence[Episodes], num_episodes: int) -> None:
    """Write episodes.npz: `observations`, `actions`, `mask` and each of the environment's infos as `info.<name>`.

    Args:
        folder: where.
        rollouts: after 0, 1, … updates.
        num_episodes: how many episodes of each task; none writes nothing. Arrays are [tasks, steps, episodes,
            updates + 1, ...].
    """
    if not num_episodes:
        return
    arrays = {name: [getattr(episodes, name) for episodes in rollouts] for name in ("observations", "actions", "mask")}
    for name in rollouts[0].infos:
        arrays[f"info.{name}"] = [episodes.infos[name] for episodes in rollouts]
    save_arrays(
        folder / "episodes.npz",
        {name: np.stack([array[:, :, :num_episodes] for array in same], axis=3) for name, same in arrays.items()},
    )
