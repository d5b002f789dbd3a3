"""What the meta-objective depends on."""

from typing import NamedTuple


class Options(NamedTuple):
    """Named as on the command line (`gae_lambda` is `--tau`)."""

    gamma: float = 0.95
    gae_lambda: float = 1.0
    fast_lr: float = 1.0
    first_order: bool = False
    inner_objective: str = "score"
    fvp_subsample: float = 1.0
