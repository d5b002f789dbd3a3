"""The inner objective: what a task's update descends.

To add one, write a function of this protocol and give it a row in `INNER_OBJECTIVES`: `--inner-objective` offers it,
workers, learner and reference use it, and where the network has derivatives by hand it needs none of its own, for it is
differentiated at the network's outputs alone. It has to be a sum over a task's steps: large tasks are computed in
parts, whose losses and gradients are added.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rl.policies.heads import Distribution


@runtime_checkable
class Steps(Protocol):
    """What an objective knows of K tasks' steps; `weights`·x is the mean over episodes of the mean over valid steps."""

    @property
    def advantages(self) -> Float[Tensor, "K N"]:
        """Normalised, zero where masked."""
        ...

    @property
    def weights(self) -> Float[Tensor, "K N"]:
        """As above."""
        ...

    @property
    def sampled(self) -> Float[Tensor, "K N"] | None:
        """log π_sampled of every step's action; None where the policy itself sampled."""
        ...

    def log_prob(self, distribution: Distribution) -> Float[Tensor, "K N"]:
        """log π of every step's action."""
        ...


@runtime_checkable
class InnerObjective(Protocol):
    """A loss of each task, a sum over its steps, as a function of the policy's distribution at the observations."""

    def __call__(self, distribution: Distribution, batch: Steps) -> Float[Tensor, " K"]:
        """The losses; twice differentiable in the distribution's parameters."""
        ...


def score(distribution: Distribution, batch: Steps) -> Float[Tensor, " K"]:
    """REINFORCE, as published (CAVIA, arXiv 1810.03642, section 3.3):

    L = −Σ w A log π(a|s), the mean over episodes of the mean over valid steps
    """
    return -(batch.weights * batch.advantages * batch.log_prob(distribution)).sum(-1)


def ratio(distribution: Distribution, batch: Steps) -> Float[Tensor, " K"]:
    """Likelihood ratios (ProMP, arXiv 1810.06784, section 5: low-variance curvature):

    L = −Σ w A π(a|s) / π_sampled(a|s), with π_sampled a constant

    Where the policy itself sampled, the gradient is that of `score`; the second derivative also credits how θ changes
    what is sampled, each step for itself.
    """
    log_prob = batch.log_prob(distribution)
    sampled = log_prob.detach() if batch.sampled is None else batch.sampled
    return -(batch.weights * batch.advantages * torch.exp(log_prob - sampled)).sum(-1)


INNER_OBJECTIVES: dict[str, InnerObjective] = {"score": score, "ratio": ratio}
