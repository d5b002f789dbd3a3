"""What a run needs to go on, in two generations of files, and flight records of steps that went wrong."""

import dataclasses
import hashlib
import io
import json
import os
import sys

import numpy as np

from rl.errors import UserError
from rl.files import check_shapes, load_tensors, replacing, save_tensors


@dataclasses.dataclass(frozen=True)
class Counters:
    """What a run has met so far. A state saved before a counter was there begins with its default."""

    worker_restarts: int = 0
    no_update: int = 0
    rejected_nonfinite: int = 0
    rejected_in_a_row: int = 0
    flight_records: int = 0
    idle_in_a_row: int = 0
    longest_idle: int = 0

    def after(self, step, restarts):
        """The counters after an outer step.

        Args:
            step: its `StepReport`.
            restarts: of workers, in the whole run.
        """
        rejected = step.rejected_nonfinite
        idle = 0 if step.accepted else self.idle_in_a_row + 1
        return Counters(
            worker_restarts=restarts,
            no_update=self.no_update + (not step.accepted and not rejected),
            rejected_nonfinite=self.rejected_nonfinite + rejected,
            rejected_in_a_row=self.rejected_in_a_row + 1 if rejected else 0,
            flight_records=self.flight_records + rejected,
            idle_in_a_row=idle,
            longest_idle=max(self.longest_idle, idle),
        )


@dataclasses.dataclass(frozen=True)
class State:
    """All that a run needs to go on, besides its configuration: everything random follows from the iteration.

    Attributes:
        iteration: the next one.
        params: θ.
        counters: `Counters`.
        positions: where the event files ended (`rl.run.logger.Logger.positions`).
        options: what it was made with (`rl.run.folders.deciding`); empty in states older than this entry.
    """

    iteration: int
    params: dict
    counters: Counters
    positions: dict
    options: dict = dataclasses.field(default_factory=dict)


STATE, OLDER_STATE, DAMAGED_STATE = "state.pt", "state-older.pt", "state-damaged.pt"


def save_state(folder, state):
    """Save a `State`, keeping the one before it as a second generation."""
    facts = json.dumps(
        {
            "iteration": state.iteration,
            "counters": dataclasses.asdict(state.counters),
            "positions": state.positions,
            "options": state.options,
        }
    )
    params = {name: value.detach().cpu() for name, value in state.params.items()}
    with replacing(folder / STATE, older=folder / OLDER_STATE) as temporary:
        save_tensors(temporary, {"facts": facts, "params": params, "digest": _digest(facts, params)})


def states(folder):
    """The paths of the states in a folder, the newest first."""
    return [folder / name for name in (STATE, OLDER_STATE) if (folder / name).exists()]


class OptionsChanged(UserError):
    """A state was made with other options than the run has now."""


def load_state(folder, policy, options=None):
    """Load the newest undamaged `State`, or None where a run has none yet.

    A damaged newest one is put aside, lest the next one saved push the good one out.

    Args:
        folder: where policies are saved.
        policy: `MLPPolicy`, whose parameters are expected.
        options: what decides the run's result now (`rl.run.folders.deciding`), to be compared with what the
            state was made with; None: it is not.

    Raises:
        OptionsChanged: they differ; a run may only have become longer.
        UserError: there are states, but all are damaged.
    """
    damage = []
    for path in states(folder):
        try:
            state = _read_state(path)
            _check_options(state.options, options or {})
            check_shapes(path, state.params, policy)
        except OptionsChanged:
            raise
        except UserError as error:
            damage.append(str(error))
            continue
        for complaint in damage:
            print(f"warning: {complaint}; going on from {path.name}", file=sys.stderr)
            os.replace(folder / STATE, folder / DAMAGED_STATE)
        return state
    if damage:
        raise UserError("; ".join(damage))
    return None


def _check_options(before, now):
    changed = [
        f"{name}: {before[name]} when the run's state was saved, now {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name] and not (name == "num_batches" and now[name] > before[name])
    ]
    if changed:
        raise OptionsChanged("; ".join(changed))


def _read_state(path):
    content = load_tensors(path, "a run's state")
    try:
        facts, params = content["facts"], content["params"]
        intact = content["digest"] == _digest(facts, params)
        facts = json.loads(facts)
        counters, positions = Counters(**facts["counters"]), dict(facts["positions"])
        numbers = [facts["iteration"], *vars(counters).values(), *positions.values()]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(f"expected counts, found {numbers}")
        state = State(facts["iteration"], params, counters, positions, dict(facts.get("options", {})))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged: {type(error).__name__}: {error}") from None
    if not intact:
        raise UserError(f"{path}: damaged: its contents do not agree with its checksum")
    return state


def _digest(facts, params):
    """SHA-256 of a state's contents."""
    digest = hashlib.sha256(facts.encode())
    for name, value in params.items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_flight_record(path, policy, options, params, episodes, origin):
    """Save all that an outer step saw, without pickles: `python -m tests.conformance --replay FILE` repeats it.

    Args:
        path: an npz file.
        policy: `MLPPolicy`.
        options: `rl.algorithm.chunks.Options`.
        params: θ before the step.
        episodes: `Episodes` before and after the inner update.
        origin: `rl.sampling.rollout.StreamName`, the seeds.
    """
    arrays = {f"param/{name}": value.detach().cpu().numpy() for name, value in params.items()}
    for phase, seen in zip(("before", "after"), episodes, strict=True):
        for name in ("observations", "actions", "rewards", "mask"):
            arrays[f"{phase}/{name}"] = getattr(seen, name)
    description = {
        "architecture": policy.architecture._asdict(),
        "options": options._asdict(),
        "origin": origin._asdict(),
    }
    with replacing(path) as temporary:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, description=json.dumps(description), **arrays)
        temporary.write_bytes(buffer.getvalue())
