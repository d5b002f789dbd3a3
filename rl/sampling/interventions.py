"""Interventions: a policy acts with other gates, or with another context, than adaptation gave it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl import streams
from rl.algorithm.inner_loop import Adapted
from rl.policies import MLPPolicy
from rl.policies.heads import Distribution

MODULATION = ("normal", "ones", "frozen", "shuffled", "swapped")
CONTEXT = ("normal", "zero", "swapped", "gates")


class Intervention(NamedTuple):
    """What is changed while acting; adaptation itself does not see the change.

    Attributes:
        modulation: normal (gates as computed), ones (all 1), frozen (as before adaptation at the same observation),
            shuffled (permuted over a layer's units, one permutation for all), swapped (another task's).
        context: normal, zero, swapped (another task's φ), gates (gates see φ, layers see 0).
        seed: of the permutations.
    """

    modulation: str = "normal"
    context: str = "normal"
    seed: int = 0

    @property
    def swaps_tasks(self) -> bool:
        """Whether a task is given gates or a context of another one, so that a group needs two different tasks."""
        return "swapped" in (self.modulation, self.context)

    @property
    def imposes_gates(self) -> bool:
        """Whether gates are computed apart from the layers and then imposed on them."""
        return self.modulation != "normal" or self.context == "gates"


class IntervenedPolicy:
    """A policy under an intervention; `rl.sampling.rollout.rollout` calls it as it calls an `MLPPolicy`.

    Gates are first computed as in the policy itself, for the θ and φ that the intervention names, and then imposed.

    Args:
        start: before any update.
        tasks: "swapped" gives each what adapted to another one of them.
    """

    def __init__(self, policy: MLPPolicy, intervention: Intervention, start: Adapted, tasks: Sequence[dict[str, Any]]):
        self.policy, self.intervention, self.start = policy, intervention, start
        self.others = other_tasks(tasks) if intervention.swaps_tasks else None
        self.head = policy.head
        sizes = policy.architecture.hidden_sizes
        rng = streams.generator(streams.key(intervention.seed, purpose=streams.SHUFFLE))
        self.permutations = {
            name: torch.from_numpy(rng.permutation(size)) for name, size in zip(policy.layer_names, sizes, strict=True)
        }

    def bind(
        self, params: dict[str, Tensor], context: Float[Tensor, "K C"] | None
    ) -> Callable[[Float[Tensor, "K N O"]], Distribution]:
        """As `MLPPolicy.bind`."""
        return functools.partial(self, params, context)

    def __call__(
        self, params: dict[str, Tensor], context: Float[Tensor, "K C"] | None, observations: Float[Tensor, "K N O"]
    ) -> Distribution:
        """As `MLPPolicy.__call__`."""
        adapted = Adapted(params, context)
        acting = self._acting(adapted)
        gates = self._gates(adapted, acting, observations) if self.intervention.imposes_gates else None
        return self.policy(*acting, observations, gates=gates)

    def _acting(self, adapted: Adapted) -> Adapted:
        """The θ and φ of the layers."""
        if self.intervention.context in ("zero", "gates"):
            return Adapted(adapted.params, self.start.context)
        if self.intervention.context == "swapped":
            return Adapted(adapted.params, self._adapted_to_others(adapted).context)
        return adapted

    def _gates(
        self, adapted: Adapted, acting: Adapted, observations: Float[Tensor, "K N O"]
    ) -> dict[str, Float[Tensor, "K N _"] | Float[Tensor, " 1"]]:
        """The gates to impose on each layer."""
        modulation = self.intervention.modulation
        if modulation == "ones":
            return dict.fromkeys(self.permutations, torch.ones(1))
        gating = adapted if self.intervention.context == "gates" else acting
        if modulation == "frozen":
            gating = self.start
        elif modulation == "swapped":
            gating = self._adapted_to_others(adapted)
        record: dict[str, Tensor] = {}
        self.policy(*gating, observations, record)
        gates = {name: record[f"{name}.gates"] for name in self.permutations}
        if modulation == "shuffled":
            return {name: values[..., self.permutations[name]] for name, values in gates.items()}
        return gates

    def _adapted_to_others(self, adapted: Adapted) -> Adapted:
        """For each task the θ and φ that adapted to another one; a θ that the tasks share stays."""
        params = {
            name: value[self.others] if value.dim() > len(self.policy.shapes[name]) else value
            for name, value in adapted.params.items()
        }
        return Adapted(params, None if adapted.context is None else adapted.context[self.others])


def differ(tasks: Sequence[dict[str, Any]]) -> bool:
    """Whether there are two different ones among some tasks."""
    return any(task != tasks[0] for task in tasks)


def other_tasks(tasks: Sequence[dict[str, Any]]) -> list[int]:
    """For each task of a group the index of the next one, in a circle, that differs from it.

    Raises:
        ValueError: all tasks of the group are equal.
    """
    if not differ(tasks):
        raise ValueError("swapped: a group of tasks has no two different ones")
    count = len(tasks)
    return [next(j % count for j in range(i + 1, i + count) if tasks[j % count] != tasks[i]) for i in range(count)]
