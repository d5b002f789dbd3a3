"""What a run keeps of θ: the state that it resumes from, its policies, flight records of steps that went wrong."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl.algorithm.jacobian import flatten
from rl.algorithm.outer_step import OuterStep
from rl.errors import UserError
from rl.files import load_tensors, replacing, save_arrays, save_tensors
from rl.policies import MLPPolicy
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import StreamName

STATE = "state.pt"


@dataclasses.dataclass(frozen=True)
class Counters:
    """What a run has met so far."""

    worker_restarts: int = 0
    no_update: int = 0
    rejected_nonfinite: int = 0
    rejected_in_a_row: int = 0
    flight_records: int = 0
    idle_in_a_row: int = 0

    def after(self, accepted: bool, rejected: bool) -> "Counters":
        """The counters after an outer step.

        Args:
            accepted: whether it moved θ.
            rejected: whether it met numbers that are not finite.
        """
        return dataclasses.replace(
            self,
            no_update=self.no_update + (not accepted and not rejected),
            rejected_nonfinite=self.rejected_nonfinite + rejected,
            rejected_in_a_row=self.rejected_in_a_row + 1 if rejected else 0,
            flight_records=self.flight_records + rejected,
            idle_in_a_row=0 if accepted else self.idle_in_a_row + 1,
        )


@dataclasses.dataclass(frozen=True)
class State:
    """All that a run needs to go on, besides its configuration: everything random follows from the iteration.

    Attributes:
        iteration: the next one.
        params: θ.
        options: what it was made with (`rl.run.config_file.result_options`).
        outer_state: of the outer step.
    """

    iteration: int
    params: dict[str, Tensor]
    counters: Counters = Counters()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outer_state: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def save_state(folder: Path, state: State) -> None:
    """Save a state, whole or not at all."""
    facts = {
        "iteration": state.iteration, "counters": dataclasses.asdict(state.counters), "options": dict(state.options)
    }  # fmt: skip
    params, outer_state = (
        {name: value.detach().cpu() for name, value in part.items()} for part in (state.params, state.outer_state)
    )
    with replacing(folder / STATE) as temporary:
        save_tensors(temporary, {"facts": json.dumps(facts), "params": params, "outer_state": outer_state})


def load_state(folder: Path, policy: MLPPolicy, outer_step: OuterStep) -> State:
    """The state of a run.

    Args:
        outer_step: whose state it has, once a step was made.

    Raises:
        UserError: there is none, or it is not sound.
    """
    path = folder / STATE
    content = load_tensors(path, "a run's state")
    try:
        if not isinstance(content, dict):
            raise TypeError(f"expected a dict, found a {type(content).__name__}")
        facts = json.loads(content["facts"])
        counters, iteration = Counters(**facts["counters"]), facts["iteration"]
        if not all(type(number) is int and number >= 0 for number in (iteration, *vars(counters).values())):
            raise ValueError(f"expected counts, found {str(facts)[:200]}")
        params, outer_state = checked_params(path, content["params"], policy), dict(content["outer_state"])
        if other := [name for name in params if content["params"][name].dtype != torch.float32]:
            raise ValueError(f"{other[0]}: expected float32, found {content['params'][other[0]].dtype}")
        if not all(
            isinstance(value, Tensor) and dense(value) and value.isfinite().all() for value in outer_state.values()
        ):
            raise ValueError("expected finite tensors as the outer step's state")
        wanted, given = (
            {name: (str(value.dtype), *value.shape) for name, value in part.items()}
            for part in (outer_step.init(flatten(params)), outer_state)
        )
        if given != wanted and (given or iteration):
            raise ValueError(f"expected {wanted} as the outer step's state, found {given}")
        return State(iteration, params, counters, dict(facts["options"]), outer_state)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: expected a run's state, as this version writes it: {type(error).__name__}: {error}"
        ) from None


def save_policy(path: Path, params: dict[str, Tensor]) -> None:
    """Save θ as a state dict with the published names."""
    with replacing(path) as temporary:
        save_tensors(temporary, {name: value.detach().cpu() for name, value in params.items()})


def load_policy(path: Path, policy: MLPPolicy) -> dict[str, Tensor]:
    """θ from a state dict saved by this code or by the published one, float32 in the policy's own order.

    Raises:
        UserError: no such file, something else than a state dict, or one of another shape.
    """
    return checked_params(path, load_tensors(path, "a policy's state dict"), policy)


def checked_params(path: Path, content: Any, policy: MLPPolicy) -> dict[str, Tensor]:
    """What was read from a file as θ: finite float32 numbers of the policy's shapes, in its order.

    Raises:
        UserError: naming the file and the first tensor that is something else.
    """
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors), found a {type(content).__name__}")
    for name, value in content.items():
        if not dense(value):
            raise UserError(f"{path}: {name}: expected a dense tensor of real numbers, found another kind of tensor")
    check_shapes(path, content, policy)
    params = {}
    for name in policy.shapes:
        value = content[name]
        params[name] = value.to(torch.float32)
        if not params[name].isfinite().all():
            raise UserError(f"{path}: {name}: expected finite numbers, found others")
    return params


def dense(value: Tensor) -> bool:
    """Whether a tensor is an ordinary one of real numbers: of others not even the shape can be asked for."""
    strange = value.is_nested or value.layout != torch.strided
    return not (strange or value.is_meta or value.is_quantized or value.is_complex())


def check_shapes(path: Path, params: Mapping[str, Tensor], policy: MLPPolicy) -> None:
    """Hold a state dict, read from a path, against the policy's shapes.

    Raises:
        UserError: names the first differences.
    """
    expected = policy.shapes
    found = {name: tuple(value.shape) for name, value in params.items()}
    differences = [
        f"{name}: expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - 4} more)" if len(differences) > 4 else ""
        raise UserError(f"{path}: does not fit the configuration: {'; '.join(differences[:4])}{more}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else "×".join(map(str, shape)) or "a number"


def save_flight_record(
    path: Path,
    policy: MLPPolicy,
    options: Mapping[str, Any],
    state: State,
    episodes: Sequence[Episodes],
    stream: StreamName,
) -> None:
    """Save all that an outer step saw, without pickles: `python -m tests.conformance --replay FILE` repeats it.

    Args:
        path: an npz file.
        options: "objective", "outer_step" (its name) and "outer", the outer step's own.
        state: before the step.
        episodes: after 0, 1, 2, … inner updates.
    """
    arrays = {f"param/{name}": value.detach().cpu().numpy() for name, value in state.params.items()}
    arrays |= {f"outer_state/{name}": value.detach().cpu().numpy() for name, value in state.outer_state.items()}
    for number, seen in enumerate(episodes):
        for name in ("observations", "actions", "rewards", "mask"):
            arrays[f"{number}/{name}"] = getattr(seen, name)
    description = {"architecture": policy.architecture._asdict(), **options, "stream": stream._asdict()}
    save_arrays(path, {"description": json.dumps(description), **arrays})
