"""The meta-learner: one outer step from the episodes of an iteration."""

from typing import Any

from torch import Tensor

from rl.algorithm.jacobian import flatten, unflatten
from rl.algorithm.meta_objective import Compute, MetaObjective, OrderedSum
from rl.algorithm.options import Options
from rl.algorithm.outer_step import OuterStep
from rl.algorithm.trajectories import Trajectories
from rl.policies import MLPPolicy
from rl.sums import ordered_sum


class MetaLearner:
    """Meta-learns θ.

    Args:
        options: of the meta-objective.
        outer_step: the rule that moves θ.
        total: as of `MetaObjective`; by default this process has all tasks.
        compute: as of `Compute`: how sums over tasks are computed.

    Attributes:
        state: of the outer step; empty before the first one, and where it keeps none.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        options: Options,
        outer_step: OuterStep,
        total: OrderedSum = ordered_sum,
        **compute: Any,
    ):
        self.policy, self.options, self.outer_step, self.total = policy, options, outer_step, total
        self.compute = Compute(policy, **compute)
        self.state: dict[str, Tensor] = {}

    def step(self, params: dict[str, Tensor], *episodes: Trajectories) -> tuple[dict[str, Tensor], dict[str, float]]:
        """One outer step.

        Args:
            params: θ.
            episodes: of this rank's tasks, after 0, 1, 2, … inner updates.

        Returns:
            (new θ, metrics under TensorBoard's tags); θ itself where no step was acceptable.
        """
        theta = flatten(params).to(self.compute.device, self.compute.dtype)
        objective = MetaObjective(self.compute, self.options, theta, episodes, self.outer_step.products, self.total)
        state = self.state or self.outer_step.init(theta)
        state = {name: value.to(theta.device) for name, value in state.items()}
        moved, self.state, metrics = self.outer_step.step(theta, state, objective)
        if moved is not theta:
            new = unflatten(self.policy, moved)
            params = {name: new[name].to(value.device, value.dtype).clone() for name, value in params.items()}
        metrics |= {
            "loss/inner_rl": objective.inner_loss,
            "loss/outer_rl": objective.loss,
            "baseline/ridge_retries": objective.ridge_retries,
        }
        return params, metrics
