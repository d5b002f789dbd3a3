"""Policies: head (Normal, Categorical) × layer (plain, modulated) × adaptation (context, all weights)."""

from rl.policies.elementwise import GATES, NONLINEARITIES
from rl.policies.heads import Categorical, Normal
from rl.policies.mlp import Architecture, MLPPolicy

__all__ = ["GATES", "NONLINEARITIES", "Architecture", "Categorical", "MLPPolicy", "Normal", "make_policy"]


def make_policy(architecture: Architecture) -> MLPPolicy:
    """The policy of an `Architecture`."""
    return MLPPolicy(architecture)
