"""Policies: head (Normal, Categorical) × layer (plain, modulated) × adaptation (context, all weights)."""

from rl.policies.heads import Categorical, Normal
from rl.policies.mlp import NONLINEARITIES, Architecture, MLPPolicy

__all__ = ["NONLINEARITIES", "Architecture", "Categorical", "MLPPolicy", "Normal", "make_policy"]


def make_policy(architecture):
    """The policy of an `Architecture`."""
    return MLPPolicy(architecture)
