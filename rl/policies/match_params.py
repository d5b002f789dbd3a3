"""The control of arXiv 2111.00134: a plain policy with as many parameters as the modulated one of the same options."""

from rl.policies import make_policy


def count(architecture):
    """The number of parameters of a policy."""
    return make_policy(architecture).num_params


def modulated(plain):
    """The neuromodulated `Architecture` with the options of a plain one; the kind of gate changes no size."""
    return plain._replace(nm_gate="hard")


def widened(plain):
    """A plain `Architecture` with hidden layers of equal width whose number of parameters is closest to the modulated
    one's; the narrower of two that are equally close.

    The number grows with the width, so the width is found by bisection.
    """
    wanted = count(modulated(plain))
    narrow = max(plain.hidden_sizes)
    wide = 2 * narrow
    while count(_of_width(plain, wide)) < wanted:
        wide *= 2
    while wide - narrow > 1:
        middle = (narrow + wide) // 2
        if count(_of_width(plain, middle)) <= wanted:
            narrow = middle
        else:
            wide = middle
    return min((_of_width(plain, width) for width in (narrow, wide)), key=lambda found: abs(count(found) - wanted))


def report(found, hidden_size):
    """A line with both counts, of an `Architecture` widened from layers of `hidden_size` units."""
    plain = _of_width(found, hidden_size)
    return (
        f"--match-params: {found.hidden_sizes[0]} units instead of {hidden_size}: {count(found)} parameters; "
        f"the neuromodulated policy has {count(modulated(plain))}"
    )


def _of_width(plain, width):
    return plain._replace(hidden_sizes=(width,) * len(plain.hidden_sizes))
