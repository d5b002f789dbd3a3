"""The table of outer steps; to add one, give it a row: `--outer-step` offers it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rl.algorithm import ppo, trpo
from rl.algorithm.outer_step import OuterStep


class Row(NamedTuple):
    """How a step is made from its options, a NamedTuple whose fields are named as on the command line, and the options
    of the meta-objective that serve it alone.
    """

    make: Callable[[Any], OuterStep]
    options: Any
    of_the_objective: tuple[str, ...] = ()

    @property
    def own(self) -> set[str]:
        """All options that serve it; rows may share some."""
        return {*self.options._fields, *self.of_the_objective}


OUTER_STEPS = {
    "trpo": Row(trpo.TRPO, trpo.Options, ("fvp_subsample", "pre_update_kl")),
    "ppo": Row(ppo.PPO, ppo.Options, ("clip_eps", "inner_kl_penalty")),
}


def of_others(chosen: str) -> dict[str, str]:
    """The options that serve other outer steps and not the chosen one -> such a step."""
    return {option: name for name, row in OUTER_STEPS.items() for option in row.own - OUTER_STEPS[chosen].own}
