"""Causal checks: act as the policy would with other gates, or with another context, than adaptation gave it."""

import functools
from typing import NamedTuple

import torch

from rl import streams
from rl.algorithm.inner_loop import Adapted

MODULATION = ("normal", "ones", "frozen", "shuffled", "swapped")
CONTEXT = ("normal", "zero", "swapped", "gates")


class Intervention(NamedTuple):
    """What is changed while acting; adaptation itself goes on as without it.

    Attributes:
        modulation: normal (gates as computed), ones (all 1), frozen (as before adaptation at the same observation),
            shuffled (permuted over a layer's units, one permutation for all), swapped (another task's).
        context: normal, zero, swapped (another task's φ), gates (gates see φ, layers see 0).
        seed: of the permutations.
    """

    modulation: str = "normal"
    context: str = "normal"
    seed: int = 0


class Intervened:
    """Stands where `rl.sampling.rollout.rollout` calls a policy.

    Gates are first computed as in the policy itself, for the θ and φ that the intervention names, and then imposed.

    Args:
        policy: `MLPPolicy`.
        intervention: `Intervention`.
        start: the `Adapted` before any update.
        tasks: list of K tasks; "swapped" gives each what adapted to another one of them.
    """

    def __init__(self, policy, intervention, start, tasks):
        self.policy, self.intervention, self.start = policy, intervention, start
        self.others = others(tasks) if "swapped" in intervention else None
        self.head = policy.head
        sizes = policy.architecture
        rng = streams.generator(streams.key(intervention.seed, purpose=streams.SHUFFLE))
        self.orders = {
            name: torch.from_numpy(rng.permutation(size))
            for name, size in zip(policy.layer_names, sizes.hidden_sizes, strict=True)
        }

    def bind(self, params, context):
        """As `MLPPolicy.bind`."""
        return functools.partial(self, params, context)

    def __call__(self, params, context, observations):
        """As `MLPPolicy.__call__`."""
        modulation, told = self.intervention.modulation, self.intervention.context
        given, without = Adapted(params, context), Adapted(params, self.start.context)
        acting = without if told in ("zero", "gates") else given
        if told == "swapped":
            acting = Adapted(params, context[self.others])
        if modulation == "normal" and told != "gates":
            return self.policy(*acting, observations)
        if modulation == "ones":
            return self.policy(*acting, observations, gates=dict.fromkeys(self.orders, torch.ones(1)))

        gating = given if told == "gates" else acting
        if modulation == "frozen":
            gating = self.start
        elif modulation == "swapped":
            gating = self._of_others(params, context)
        record = {}
        self.policy(*gating, observations, record)
        gates = {name: record[f"{name}.gates"] for name in self.orders}
        if modulation == "shuffled":
            gates = {name: values[..., self.orders[name]] for name, values in gates.items()}
        return self.policy(*acting, observations, gates=gates)

    def _of_others(self, params, context):
        """What adapted to the other tasks."""
        shapes = self.policy.shapes
        params = {
            name: value[self.others] if value.dim() > len(shapes[name]) else value for name, value in params.items()
        }
        return Adapted(params, None if context is None else context[self.others])


def differ(tasks):
    """Whether there are two different ones among some tasks."""
    return any(task != tasks[0] for task in tasks)


def others(tasks):
    """For each task of a group the next one, in a circle, that differs from it: list of K indices.

    Raises:
        ValueError: all tasks of the group are equal.
    """
    if not differ(tasks):
        raise ValueError("swapped: a group of tasks has no two different ones")
    count = len(tasks)
    return [next(j % count for j in range(i + 1, i + count) if tasks[j % count] != tasks[i]) for i in range(count)]
