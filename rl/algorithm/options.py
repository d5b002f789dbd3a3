"""What the meta-objective depends on."""

from typing import NamedTuple


class Options(NamedTuple):
    """Named as on the command line (`gae_lambda` is `--tau`). `clip_eps` is 0 where ratios are not clipped."""

    gamma: float = 0.95
    gae_lambda: float = 1.0
    fast_lr: float = 1.0
    first_order: bool = False
    inner_objective: str = "score"
    fvp_subsample: float = 1.0
    pre_update_return: float = 0.0
    exploration_credit: float = 0.0
    entropy_bonus: float = 0.0
    pre_update_kl: float = 1.0
    clip_eps: float = 0.0
    inner_kl_penalty: float = 0.0

    @property
    def credits_exploration(self) -> bool:
        """Whether the objective has terms of the pre-update policy."""
        return any((self.pre_update_return, self.exploration_credit, self.entropy_bonus, self.inner_kl_penalty))
