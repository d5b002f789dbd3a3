"""Inner objectives: `ratio` against `score`, and one more that is added in one row."""

import pytest
import torch

from rl.algorithm.batch import prepare
from rl.algorithm.chunks import Chunk
from rl.algorithm.inner_loop import inner_step, unadapted
from rl.algorithm.inner_objective import INNER_OBJECTIVES, ratio, score
from rl.algorithm.jacobian import flatten
from tests.support.chunks import OPTIONS, SOME, GraphChunk, assert_gradient_of_evaluate, chunk_of, made_up
from tests.support.helpers import random_params

HEADS = pytest.mark.parametrize("head", ["normal", "categorical"])
DISTINCT = pytest.mark.parametrize("distinct", [None, 4])


@HEADS
@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
def test_ratio_and_score_make_the_same_update(head, adaptation):
    policy, params, before, _ = made_up(head, adaptation=adaptation)
    (batch,), _ = prepare(before, [before], 0.9, 0.95, torch.float64)
    start = unadapted(policy, params, 3)
    (by_score, score_losses), (by_ratio, ratio_losses) = (
        inner_step(policy, start, batch, 0.3, objective) for objective in (score, ratio)
    )
    for name, value in by_ratio.params.items():
        torch.testing.assert_close(value, by_score.params[name], rtol=1e-12, atol=1e-13)
    if adaptation == "cavia":
        torch.testing.assert_close(by_ratio.context, by_score.context, rtol=1e-12, atol=1e-13)
        assert by_ratio.context.all()
    # All ratios are 1 there: the loss is −Σ w A.
    torch.testing.assert_close(ratio_losses, -(batch.weights * batch.advantages).sum(1))
    assert not torch.allclose(ratio_losses, score_losses)


@SOME
@HEADS
@DISTINCT
def test_the_second_derivative_of_ratio_is_that_of_the_ratio_to_what_sampled(kind, adaptation, head, distinct):
    """Through the update, θ moves π while what sampled stays: finite differences see that in the outer loss, at θ_old
    and away from it.
    """
    policy, params, before, after = made_up(head, "soft", adaptation, distinct=distinct)
    chunk = chunk_of(kind, policy, params, before, after, OPTIONS._replace(inner_objective="ratio"))
    vector = flatten(params)
    assert_gradient_of_evaluate(policy, chunk, vector, chunk.gradient)
    elsewhere = vector + 0.1 * flatten(random_params(policy, seed=4))
    assert_gradient_of_evaluate(policy, chunk, elsewhere, chunk.loss_and_gradient(elsewhere)[1])
    # Not `score`'s, though the loss is the same.
    by_score = chunk_of(kind, policy, params, before, after)
    torch.testing.assert_close(chunk.loss, by_score.loss, rtol=1e-12, atol=1e-13)
    with pytest.raises(AssertionError):
        assert_gradient_of_evaluate(policy, chunk, flatten(params), by_score.gradient)


def squared(distribution, batch):
    """−Σ w (A log π − 0.1 (log π)²)"""
    log_prob = batch.log_prob(distribution)
    return -(batch.weights * (batch.advantages * log_prob - 0.1 * log_prob.square())).sum(-1)


@HEADS
@DISTINCT
@pytest.mark.parametrize("objective", ["ratio", "squared"])
def test_an_objective_needs_no_derivatives_by_hand(objective, head, distinct, monkeypatch):
    """One row more, as a user would add it, and gradients and products by hand are those by graph."""
    monkeypatch.setitem(INNER_OBJECTIVES, "squared", squared)
    policy, params, before, after = made_up(head, distinct=distinct)
    direction, options = flatten(random_params(policy, seed=9)), OPTIONS._replace(inner_objective=objective)
    figures = []
    for kind in (Chunk, GraphChunk):
        chunk = chunk_of(kind, policy, params, before, after, options)
        figures.append((chunk.loss, chunk.gradient, chunk.inner_losses, chunk.kl_hessian_product(direction)))
    for by_hand, by_graph in zip(*figures, strict=True):
        torch.testing.assert_close(by_hand, by_graph, rtol=1e-10, atol=1e-11)
