"""Every random number of a run comes from a stream named by where it is used.

A stream is a Philox generator whose 128-bit key spells out (seed, iteration, phase, task, episode, purpose). Two
streams share a number only if they share their name, and a name needs no memory of what was drawn before it: any
process can redraw any part of a run.
"""

from collections.abc import Iterable, Iterator

import numpy as np

Whole = int | np.integer

# Field widths in bits; together the 128 bits of a Philox key.
_WIDTHS = {"seed": 32, "iteration": 32, "phase": 8, "task": 24, "episode": 24, "purpose": 8}
MAX_SEED = 2 ** _WIDTHS["seed"] - 1

# Rollouts: training and evaluation draw from streams of their own. A phase is one of these plus the
# number of updates made so far.
TRAIN, EVALUATE = 0, 128
MAX_UPDATES = 127

# Purposes.
ENVIRONMENT, ACTIONS, TASKS, PARAMETERS, PROBE, SHUFFLE = range(6)


def key(
    seed: Whole, iteration: Whole = 0, phase: Whole = 0, task: Whole = 0, episode: Whole = 0, purpose: Whole = 0
) -> int:
    """Pack the name of a stream into an integer below 2**128.

    Raises:
        ValueError: a field is negative or too large for its width.
    """
    packed = 0
    for (name, width), value in zip(_WIDTHS.items(), (seed, iteration, phase, task, episode, purpose), strict=True):
        if not 0 <= value < 2**width:
            raise ValueError(f"random stream: {name} must lie in [0, 2**{width}), got {value}")
        packed = packed << width | int(value)
    return packed


def generator(packed: int) -> np.random.Generator:
    """The stream of a key, from its beginning."""
    return np.random.Generator(np.random.Philox(key=packed))


def each(keys: Iterable[int]) -> Iterator[np.random.Generator]:
    """The streams of several keys, from their beginnings, one after another: yields the same generator, turned to the
    next key, which takes an eighth of the time of a new one.
    """
    bits = np.random.Philox(key=0)
    generator = np.random.Generator(bits)
    beginning = bits.state
    for packed in keys:
        beginning["state"]["key"][:] = packed & (2**64 - 1), packed >> 64
        bits.state = beginning
        yield generator
