"""The derivatives of the outer step, against double backpropagation of a plain twin and finite differences."""

import itertools

import pytest
import torch

from rl.chunks import ContextChunk, GraphChunk, Options, flatten, make_chunk, unflatten
from tests.helpers import COMBINATIONS, FAST, Twin, made_up_episodes, random_params, small_policy

# Context policies can be differentiated by hand and by graphs, MAML by graphs alone.
KINDS = [
    (kind, *combination)
    for kind, combination in itertools.product((ContextChunk, GraphChunk), COMBINATIONS)
    if kind is GraphChunk or combination[2] == "cavia"
]
EVERY = pytest.mark.parametrize("kind, head, layer, adaptation", KINDS)
OPTIONS = Options(fast_lr=0.3, **FAST)
DOUBLE = torch.float64


def made_up(head="normal", layer="soft", adaptation="cavia", num_tasks=3, distinct=None, **sizes):
    policy = small_policy(head, layer, adaptation, **sizes)
    before, after = (made_up_episodes(policy, num_tasks, seed=seed, distinct=distinct) for seed in (0, 1))
    return policy, random_params(policy), before, after


def chunk_of(kind, policy, before, after, options=OPTIONS):
    return kind(policy, before, after, options, DOUBLE, "cpu")


def test_every_policy_gets_the_cheaper_kind():
    for adaptation, kind in (("cavia", ContextChunk), ("maml", GraphChunk)):
        policy, _, before, after = made_up(adaptation=adaptation)
        assert type(make_chunk(policy, before, after, OPTIONS, DOUBLE, "cpu")) is kind


@EVERY
def test_gradient_and_curvature_equal_double_backpropagation_of_a_plain_twin(kind, head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    chunk = chunk_of(kind, policy, before, after)
    vector = flatten(params)
    loss, gradient, _ = chunk.linearize(vector)
    direction = flatten(random_params(policy, seed=9))
    product = chunk.product(direction)

    own = vector.clone().requires_grad_()
    surrogate, divergence = Twin(policy, before, after, chunk, vector)(own)
    torch.testing.assert_close(loss / 3, surrogate.detach(), rtol=0, atol=1e-12)
    assert abs(float(divergence.detach())) < 1e-14
    (expected,) = torch.autograd.grad(surrogate, own, retain_graph=True)
    torch.testing.assert_close(gradient / 3, expected, rtol=1e-10, atol=1e-12)
    (first,) = torch.autograd.grad(divergence, own, create_graph=True)
    assert float(first.detach().abs().max()) < 1e-12
    (second,) = torch.autograd.grad(first @ direction, own)
    torch.testing.assert_close(product / 3, second, rtol=1e-9, atol=1e-11)


@EVERY
def test_the_gradient_equals_finite_differences(kind, head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    chunk = chunk_of(kind, policy, before, after)
    vector = flatten(params)
    _, gradient, _ = chunk.linearize(vector)
    h = 1e-5
    for seed in (2, 3, 4):
        direction = flatten(random_params(policy, seed=seed))
        above, below = (chunk.evaluate(vector + s * direction)[0] for s in (h, -h))
        assert float(gradient @ direction) == pytest.approx(float((above - below) / (2 * h)), rel=1e-6, abs=1e-8)


SOME = pytest.mark.parametrize(
    "kind, adaptation", [(ContextChunk, "cavia"), (GraphChunk, "cavia"), (GraphChunk, "maml")]
)


@SOME
def test_evaluate_equals_the_plain_twin_away_from_the_old_weights(kind, adaptation):
    policy, params, before, after = made_up(adaptation=adaptation)
    chunk = chunk_of(kind, policy, before, after)
    vector = flatten(params)
    chunk.linearize(vector)
    elsewhere = vector + 0.1 * flatten(random_params(policy, seed=4))
    found = chunk.evaluate(elsewhere)
    expected = Twin(policy, before, after, chunk, vector)(elsewhere)
    assert expected[1] > 1e-3
    for value, literal in zip(found, expected, strict=True):
        torch.testing.assert_close(value / 3, literal.detach(), rtol=1e-11, atol=1e-12)


@EVERY
def test_the_curvature_is_symmetric_and_positive(kind, head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    chunk = chunk_of(kind, policy, before, after)
    chunk.linearize(flatten(params))
    u, v = (flatten(random_params(policy, seed=seed)) for seed in (5, 6))
    assert float(u @ chunk.product(v)) == pytest.approx(float(v @ chunk.product(u)), rel=1e-10)
    assert u @ chunk.product(u) > 0
    torch.testing.assert_close(chunk.product(2 * u + v), 2 * chunk.product(u) + chunk.product(v), rtol=1e-9, atol=1e-11)


@SOME
def test_first_order_drops_second_derivatives_from_the_gradient(kind, adaptation):
    policy, params, before, after = made_up(adaptation=adaptation)
    chunk = chunk_of(kind, policy, before, after)
    vector = flatten(params)
    _, second_order, _ = chunk.linearize(vector)
    _, first_order, _ = chunk_of(kind, policy, before, after, OPTIONS._replace(first_order=True)).linearize(vector)
    assert float((first_order - second_order).norm() / second_order.norm()) > 1e-3
    own = vector.clone().requires_grad_()
    surrogate, _ = Twin(policy, before, after, chunk, vector, first_order=True)(own)
    (expected,) = torch.autograd.grad(surrogate, own)
    torch.testing.assert_close(first_order / 3, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
@pytest.mark.parametrize("hidden_sizes", [(4,), (5, 4), (4, 3, 5)], ids=str)
@pytest.mark.parametrize("layer", ["plain", "hard", "soft"])
@pytest.mark.parametrize("head", ["normal", "categorical"])
@pytest.mark.parametrize(
    "num_tasks, distinct, first_order", [(3, None, False), (1, None, False), (2, 4, False), (1, 4, True)]
)
def test_derivatives_by_hand_equal_those_by_graphs(
    num_tasks, distinct, first_order, head, layer, hidden_sizes, nonlinearity
):
    # A chunk of one task with few context parameters keeps dφ'/dθ as a matrix.
    policy, params, before, after = made_up(
        head, layer, num_tasks=num_tasks, distinct=distinct, hidden_sizes=hidden_sizes, nonlinearity=nonlinearity
    )
    options = OPTIONS._replace(first_order=first_order)
    vector, direction = flatten(params), flatten(random_params(policy, seed=9))
    figures = []
    for kind in (ContextChunk, GraphChunk):
        chunk = chunk_of(kind, policy, before, after, options)
        linearized = chunk.linearize(vector)
        # A second product finds everything as the first one left it.
        figures.append((*linearized, chunk.product(direction), chunk.product(direction), *chunk.evaluate(vector)))
        chunk.release()
    for by_hand, by_graph in zip(*figures, strict=True):
        torch.testing.assert_close(by_hand, by_graph, rtol=1e-10, atol=1e-11)


def test_many_context_parameters_are_never_made_a_matrix():
    policy, params, before, after = made_up(num_tasks=1, num_context_params=7)
    vector, direction = flatten(params), flatten(random_params(policy, seed=9))
    products = []
    for cg_iters, as_matrix in ((6, False), (7, True)):
        chunk = chunk_of(ContextChunk, policy, before, after, OPTIONS._replace(cg_iters=cg_iters))
        chunk.linearize(vector)
        assert (chunk.adapted_by is not None) == as_matrix
        products.append(chunk.product(direction))
    torch.testing.assert_close(*products, rtol=1e-10, atol=1e-11)


def test_a_clamped_log_std_has_no_derivative():
    policy, params, before, after = made_up(layer="plain")
    params["sigma"] = torch.tensor([-20.0, 0.1], dtype=DOUBLE)
    # Actions as far from the mean as a standard deviation of 1e-6 makes them would overflow: stay near it.
    for episodes in (before, after):
        episodes.actions[..., 0] = 0.0
    for name in ("mu.weight", "mu.bias"):
        params[name][0] = 0.0
    direction = flatten(random_params(policy, seed=9))
    figures = []
    for kind in (ContextChunk, GraphChunk):
        chunk = chunk_of(kind, policy, before, after)
        _, gradient, _ = chunk.linearize(flatten(params))
        product = chunk.product(direction)
        assert gradient[0] == 0 and product[0] == 0 and gradient[1] != 0 and product[1] != 0
        figures.append((gradient, product))
    for by_hand, by_graph in zip(*figures, strict=True):
        torch.testing.assert_close(by_hand, by_graph, rtol=1e-9, atol=1e-9)


def test_flat_vectors_follow_the_published_order():
    policy = small_policy("normal", "hard")
    params = random_params(policy)
    vector = flatten(params)
    assert vector.numel() == sum(value.numel() for value in params.values())
    assert torch.equal(vector[:2], params["sigma"])
    again = unflatten(policy, vector)
    assert list(again) == list(params) and all(torch.equal(again[name], params[name]) for name in params)
