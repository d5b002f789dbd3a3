"""The outer step's share of a few tasks: by hand, by graphs, by finite differences. See test_reference.py, too."""

import pytest
import torch

from rl.algorithm import reference
from rl.algorithm.chunks import Chunk
from rl.algorithm.context_jacobian import ContextJacobian
from rl.algorithm.jacobian import GraphJacobian, flatten
from rl.algorithm.terms import Budget
from rl.policies import NONLINEARITIES
from tests.support.chunks import (
    DOUBLE,
    EVERY,
    OPTIONS,
    SOME,
    TRUE,
    GraphChunk,
    assert_gradient_of_evaluate,
    chunk_of,
    made_up,
)
from tests.support.helpers import (
    LAYERS,
    random_params,
)


def test_every_policy_gets_the_cheaper_jacobian():
    for adaptation, kind in (("cavia", ContextJacobian), ("maml", GraphJacobian)):
        policy, params, before, after = made_up(adaptation=adaptation)
        chunk = chunk_of(Chunk, policy, params, before, after)
        assert type(chunk.terms[0].curvature.jacobian) is kind


@TRUE
def test_the_gradient_equals_finite_differences_at_the_old_weights_and_away_from_them(kind, head, layer, adaptation):
    """A step of several gradients takes the later ones where π is no longer π_old, which stays fixed."""
    policy, params, before, after = made_up(head, layer, adaptation)
    chunk = chunk_of(kind, policy, params, before, after)
    vector = flatten(params)
    assert_gradient_of_evaluate(policy, chunk, vector, chunk.gradient)
    elsewhere = vector + 0.1 * flatten(random_params(policy, seed=4))
    loss, gradient = chunk.loss_and_gradient(elsewhere)
    torch.testing.assert_close(loss, chunk.evaluate(elsewhere)[0], rtol=1e-12, atol=1e-12)
    assert abs(float(loss - chunk.loss)) > 1e-3 and not torch.allclose(gradient, chunk.gradient, rtol=0.01)
    assert_gradient_of_evaluate(policy, chunk, elsewhere, gradient)
    # What was computed elsewhere leaves θ_old's own figures alone.
    again = chunk.loss_and_gradient(vector)
    assert torch.equal(again[0], chunk.loss) and torch.equal(again[1], chunk.gradient)


@EVERY
def test_the_curvature_is_symmetric_and_positive(kind, head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    product = chunk_of(kind, policy, params, before, after).kl_hessian_product
    u, v = (flatten(random_params(policy, seed=seed)) for seed in (5, 6))
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), rel=1e-10)
    assert u @ product(u) > 0
    torch.testing.assert_close(product(2 * u + v), 2 * product(u) + product(v), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("nonlinearity", [name for name, made in NONLINEARITIES.items() if made.derivatives])
@pytest.mark.parametrize("hidden_sizes", [(4,), (5, 4), (4, 3, 5)], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
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
    for kind in (Chunk, GraphChunk):
        chunk = chunk_of(kind, policy, params, before, after, options)
        # A second product finds everything as the first one left it.
        products = [chunk.kl_hessian_product(direction) for _ in range(2)]
        elsewhere = vector + 0.1 * direction
        at_old = (chunk.loss, chunk.gradient, chunk.inner_losses, *products, *chunk.evaluate(vector))
        figures.append((*at_old, *chunk.loss_and_gradient(elsewhere), *chunk.evaluate(elsewhere)))
    for by_hand, by_graph in zip(*figures, strict=True):
        torch.testing.assert_close(by_hand, by_graph, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("products, whole", [(7, False), (8, True)])
def test_a_tasks_context_derivatives_are_made_a_matrix_where_that_is_cheaper(products, whole):
    # 7 context parameters: 7 rows, against so many products in each direction.
    policy, params, before, after = made_up(num_tasks=1, num_context_params=7)
    direction = flatten(random_params(policy, seed=9))
    chunks = [chunk_of(kind, policy, params, before, after, products=products) for kind in (Chunk, GraphChunk)]
    assert (chunks[0].terms[0].curvature.jacobian.matrix is not None) == whole
    by_hand, by_graph = (chunk.kl_hessian_product(direction) for chunk in chunks)
    torch.testing.assert_close(by_hand, by_graph, rtol=1e-10, atol=1e-11)


@SOME
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_is_not_kept_is_computed_again_with_the_same_result(kind, adaptation, share):
    policy, params, before, after = made_up(adaptation=adaptation)
    direction, products = flatten(random_params(policy, seed=9)), []
    options = OPTIONS._replace(fvp_subsample=share)
    for count, budget, kept in ((5, None, True), (5, Budget(0), False), (0, None, False)):
        chunk = chunk_of(kind, policy, params, before, after, options, count, budget)
        assert (chunk.terms[0].curvature is not None) == kept
        products += [chunk.kl_hessian_product(direction), chunk.kl_hessian_product(direction)]
    assert all(torch.equal(product, products[0]) for product in products[1:])


def test_a_budget_is_shared():
    budget = Budget(10)
    assert budget.take(6) and not budget.take(5) and budget.take(4) and not budget.take(1)


@SOME
def test_subsampled_curvature_is_that_of_the_steps_chosen(kind, adaptation):
    policy, params, before, after = made_up(adaptation=adaptation)
    direction = flatten(random_params(policy, seed=9))
    part, whole = (
        chunk_of(kind, policy, params, before, after, OPTIONS._replace(fvp_subsample=share)) for share in (0.5, 1.0)
    )
    for name in ("loss", "gradient", "inner_losses"):
        assert torch.equal(getattr(part, name), getattr(whole, name))
    assert not torch.allclose(part.kl_hessian_product(direction), whole.kl_hessian_product(direction))
    # The same curvature as that of a chunk which has nothing but those steps.
    (term,) = whole.terms
    term.before, term.batch = [batch.subsample(0.5) for batch in term.before], term.batch.subsample(0.5)
    term.weights = term.batch.observation_weights
    expected = term._curvature(term.jacobian(term.theta, 1.0, products=1)).product(direction)
    torch.testing.assert_close(part.kl_hessian_product(direction), expected, rtol=1e-12, atol=1e-13)


def test_a_clamped_log_std_has_no_derivative():
    policy, params, before, after = made_up(layer="plain")
    params["sigma"] = torch.tensor([-20.0, 0.1], dtype=DOUBLE)
    # Actions as far from the mean as a standard deviation of 1e-6 makes them likely.
    for episodes in (before, after):
        episodes.actions[..., 0] *= 1e-6
    for name in ("mu.weight", "mu.bias"):
        params[name][0] = 0.0
    direction = flatten(random_params(policy, seed=9))
    figures = []
    for kind in (Chunk, GraphChunk):
        chunk = chunk_of(kind, policy, params, before, after)
        gradient, product = chunk.gradient, chunk.kl_hessian_product(direction)
        assert gradient[0] == 0 and product[0] == 0 and gradient[1] != 0 and product[1] != 0
        figures.append((gradient, product))
    for by_hand, by_graph in zip(*figures, strict=True):
        torch.testing.assert_close(by_hand, by_graph, rtol=1e-9, atol=1e-9 * float(by_graph.abs().max()))


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_every_nonlinearity_with_every_gate_gets_the_references_gradient(nonlinearity, layer, adaptation):
    """The other figures, of one nonlinearity: test_reference.py."""
    policy, params, before, after = made_up("normal", layer, adaptation, nonlinearity=nonlinearity)
    own = flatten(params).requires_grad_()
    surrogate, _ = reference.Objectives(policy, own, (before, after), OPTIONS)(own)
    (expected,) = torch.autograd.grad(surrogate, own)
    gradient = chunk_of(Chunk, policy, params, before, after).gradient
    torch.testing.assert_close(gradient / 3, expected, rtol=1e-10, atol=1e-12)
    assert (expected != 0).any()
