"""The control of arXiv 2111.00134: a plain policy with as many parameters as the modulated one of the same options."""

import bisect

from rl.policies import Architecture, make_policy


def count(architecture: Architecture) -> int:
    """The number of parameters of a policy."""
    return make_policy(architecture).num_params


def modulated(plain: Architecture) -> Architecture:
    """The neuromodulated `Architecture` with the options of a plain one; the kind of gate changes no size."""
    return plain._replace(nm_gate="hard")


def widened(plain: Architecture) -> Architecture:
    """A plain `Architecture` with hidden layers of equal width whose number of parameters is closest to the modulated
    one's; the narrower of two that are equally close.
    """
    target = count(modulated(plain))
    # The number grows with the width, and exceeds it.
    width = bisect.bisect_right(
        range(target + 1), target, lo=max(plain.hidden_sizes) + 1, key=lambda width: count(_of_width(plain, width))
    )
    neighbours = (_of_width(plain, width - 1), _of_width(plain, width))
    return min(neighbours, key=lambda found: abs(count(found) - target))


def report(found: Architecture, hidden_size: int) -> str:
    """A line with both counts, of an `Architecture` widened from layers of `hidden_size` units."""
    plain = _of_width(found, hidden_size)
    return (
        f"--match-params: {found.hidden_sizes[0]} units instead of {hidden_size}: {count(found)} parameters; "
        f"the neuromodulated policy has {count(modulated(plain))}"
    )


def _of_width(plain: Architecture, width: int) -> Architecture:
    return plain._replace(hidden_sizes=(width,) * len(plain.hidden_sizes))
