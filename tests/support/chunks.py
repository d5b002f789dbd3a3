"""Chunks of made-up episodes, by hand and by graphs, for the tests of what an outer step computes."""

import itertools

import pytest
import torch

from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten
from rl.algorithm.options import Options
from rl.policies import MLPPolicy
from tests.support.helpers import (
    COMBINATIONS,
    FAST,
    WITH_TRUE_DERIVATIVES,
    made_up_episodes,
    random_params,
    small_policy,
)


class GraphChunk(Chunk):
    """A chunk that leaves the derivatives of context policies, too, to automatic differentiation."""

    def __init__(self, policy, *arguments, **keywords):
        super().__init__(ByGraph(policy.architecture), *arguments, **keywords)


class ByGraph(MLPPolicy):
    """A policy that declares no derivatives."""

    differentiated_by_hand = False


# Context policies can be differentiated by hand and by graphs, MAML by graphs alone.
KINDS = [
    (kind, *combination)
    for kind, combination in itertools.product((Chunk, GraphChunk), COMBINATIONS)
    if kind is Chunk or combination[2] == "cavia"
]
EVERY = pytest.mark.parametrize("kind, head, layer, adaptation", KINDS)
TRUE = pytest.mark.parametrize(
    "kind, head, layer, adaptation", [made for made in KINDS if made[1:] in WITH_TRUE_DERIVATIVES]
)
SOME = pytest.mark.parametrize("kind, adaptation", [(Chunk, "cavia"), (GraphChunk, "cavia"), (Chunk, "maml")])
OPTIONS = Options(fast_lr=0.3, **FAST)
DOUBLE = torch.float64


def made_up(head="normal", layer="soft", adaptation="cavia", num_tasks=3, distinct=None, **sizes):
    policy = small_policy(head, layer, adaptation, **sizes)
    before, after = (made_up_episodes(policy, num_tasks, seed=seed, distinct=distinct) for seed in (0, 1))
    return policy, random_params(policy), before, after


def chunk_of(kind, policy, params, before, after, options=OPTIONS, products=5, budget=None):
    """A chunk at θ_old; its curvature is kept unless `products` is 0 or the budget says no."""
    return kind(policy, flatten(params), (before, after), options, products, budget, dtype=DOUBLE)


def assert_gradient_of_evaluate(policy, chunk, vector, gradient, h=1e-5):
    """Central differences of the surrogate loss around a vector, in three directions."""
    for seed in (2, 3, 4):
        direction = flatten(random_params(policy, seed=seed))
        above, below = (chunk.evaluate(vector + s * direction)[0] for s in (h, -h))
        assert float(gradient @ direction) == pytest.approx(float((above - below) / (2 * h)), rel=1e-6, abs=1e-8)
