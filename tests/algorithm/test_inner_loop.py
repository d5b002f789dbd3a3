import pytest
import torch

import rl.algorithm.inner_loop
from rl.algorithm.batch import prepare
from rl.algorithm.inner_loop import Adapted, detach, inner_losses, inner_step, unadapted
from tests.support.helpers import COMBINATIONS, literal_distribution, literal_log_prob, made_up_episodes, random_params
from tests.support.helpers import small_policy as make

RATE = 0.3


def made_up(head="normal", layer="soft", adaptation="cavia", distinct=None, **sizes):
    policy = make(head, layer, adaptation, **sizes)
    episodes = made_up_episodes(policy, distinct=distinct)
    (batch,), _ = prepare(episodes, [episodes], 0.9, 0.95, torch.float64)
    return policy, random_params(policy), episodes, batch


def literal_loss(policy, params, context, episodes, advantages, k):
    """Task k's loss: the mean over episodes of the mean over valid steps of −A log π."""
    observations, actions, _, mask = (torch.from_numpy(array[k]) for array in episodes.arrays())
    total = 0.0
    for e in range(mask.shape[1]):
        length = int(mask[:, e].sum())
        distribution = literal_distribution(policy.architecture, params, context, observations[:length, e])
        log_prob = literal_log_prob(distribution, actions[:length, e])
        total = total - (advantages.reshape(mask.shape)[:length, e] * log_prob).mean()
    return total / mask.shape[1]


@pytest.mark.parametrize("head, layer, adaptation", COMBINATIONS)
def test_the_step_equals_a_loop_over_tasks(head, layer, adaptation):
    policy, params, episodes, batch = made_up(head, layer, adaptation)
    stepped, losses = inner_step(policy, unadapted(policy, params, 3), batch, RATE)
    for k in range(3):
        own = {name: value.clone().requires_grad_() for name, value in params.items()}
        context = torch.zeros(2, dtype=torch.float64, requires_grad=True) if adaptation == "cavia" else None
        loss = literal_loss(policy, own, context, episodes, batch.advantages[k], k)
        torch.testing.assert_close(losses[k], loss.detach(), rtol=0, atol=1e-12)
        if adaptation == "cavia":
            (gradient,) = torch.autograd.grad(loss, context)
            torch.testing.assert_close(stepped.context[k], -RATE * gradient, rtol=0, atol=1e-12)
            assert all(stepped.params[name] is value for name, value in params.items())
        else:
            gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True, materialize_grads=True)
            for (name, value), gradient in zip(own.items(), gradients, strict=True):
                torch.testing.assert_close(stepped.params[name][k], value - RATE * gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", ["normal", "categorical"])
@pytest.mark.parametrize("distinct, at_once, parts", [
    (None, 2.0, 2), (None, 1.0, 3), (None, 0.4, 9), (None, 1e-9, 3 * 24), (5, 2.0, 2), (5, 1.0, 3), (5, 0.4, 3)
])  # fmt: skip
def test_large_batches_step_part_by_part_to_the_same_figures(monkeypatch, head, distinct, at_once, parts):
    """Three tasks, from two at once to a single one of 24 rows; observations that repeat are never cut."""
    policy, params, _, batch = made_up(head, distinct=distinct)
    num_rows = batch.observations.shape[1]
    assert (batch.rows is None) == (num_rows == 24) == (distinct is None)
    together, losses = inner_step(policy, unadapted(policy, params, 3), batch, RATE)
    steps = []
    monkeypatch.setattr(rl.algorithm.inner_loop, "MAX_ACTIVATIONS", max(1, int(at_once * num_rows * policy.width)))
    monkeypatch.setattr(
        rl.algorithm.inner_loop, "inner_losses", lambda *given: steps.append(given) or inner_losses(*given)
    )
    alone, losses_alone = inner_step(policy, unadapted(policy, params, 3), batch, RATE)
    assert len(steps) == parts
    # Sums of 24 terms of about 1, in another order.
    torch.testing.assert_close(alone.context, together.context, rtol=0, atol=1e-13)
    torch.testing.assert_close(losses_alone, losses, rtol=0, atol=1e-13)


@pytest.mark.parametrize("limit, parts", [(2**30, 1), (24 * 5 * 2, 2), (24 * 5, 3), (24, 15)])
def test_a_gpu_has_a_limit_of_its_own(monkeypatch, limit, parts):
    """Three tasks of 24 rows and layers of up to 5 units, on a device that is not the CPU."""
    policy, params, _, batch = made_up()
    batch = batch._replace(**{name: part.to("meta") for name, part in batch._asdict().items() if part is not None})
    params = {name: value.to("meta") for name, value in params.items()}
    steps = []
    monkeypatch.setattr(rl.algorithm.inner_loop, "MAX_ACTIVATIONS", 1)
    monkeypatch.setattr(rl.algorithm.inner_loop, "MAX_ACTIVATIONS_ON_GPU", limit)
    monkeypatch.setattr(
        rl.algorithm.inner_loop, "inner_losses", lambda *given: steps.append(given) or inner_losses(*given)
    )
    inner_step(policy, unadapted(policy, params, 3), batch, RATE)
    assert len(steps) == parts


@pytest.mark.parametrize("head", ["normal", "categorical"])
def test_the_contexts_gradient_equals_finite_differences(head):
    policy, params, _, batch = made_up(head)
    generator = torch.Generator().manual_seed(3)
    start = 0.3 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    stepped, _ = inner_step(policy, Adapted(params, start.clone()), batch, 1.0)
    gradient = start - stepped.context.detach()
    h = 1e-5
    for c in range(2):
        shift = torch.zeros(3, 2, dtype=torch.float64)
        shift[:, c] = h
        above, below = (inner_losses(policy, Adapted(params, start + s), batch) for s in (shift, -shift))
        torch.testing.assert_close(gradient[:, c], (above - below) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
def test_second_steps_start_where_the_first_ended(adaptation):
    policy, params, episodes, batch = made_up(adaptation=adaptation)
    first, _ = inner_step(policy, unadapted(policy, params, 3), batch, RATE)
    second, losses = inner_step(policy, detach(first), batch, RATE)
    k = 1
    own = {name: (v[k] if adaptation == "maml" else v).detach() for name, v in first.params.items()}
    context = first.context[k].detach().requires_grad_() if adaptation == "cavia" else None
    variables = [context] if adaptation == "cavia" else [value.requires_grad_() for value in own.values()]
    loss = literal_loss(policy, own, context, episodes, batch.advantages[k], k)
    torch.testing.assert_close(losses[k], loss.detach(), rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(loss, variables, allow_unused=True, materialize_grads=True)
    ends = [second.context] if adaptation == "cavia" else list(second.params.values())
    for variable, gradient, end in zip(variables, gradients, ends, strict=True):
        torch.testing.assert_close(end[k], variable - RATE * gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_context_depends_on_the_weights_through_its_gradient_alone(create_graph):
    policy, params, _, batch = made_up()
    own = {name: value.requires_grad_() for name, value in params.items()}
    stepped, _ = inner_step(policy, unadapted(policy, own, 3), batch, RATE, create_graph=create_graph)
    assert stepped.context.requires_grad == create_graph
    if create_graph:
        (gradient,) = torch.autograd.grad(stepped.context.sum(), own["mu.weight"])
        assert gradient.any()


@pytest.mark.parametrize("create_graph", [False, True])
def test_first_order_maml_moves_each_tasks_weights_with_the_shared_ones(create_graph):
    policy, params, _, batch = made_up(adaptation="maml")
    own = {name: value.requires_grad_() for name, value in params.items()}
    stepped, _ = inner_step(policy, unadapted(policy, own, 3), batch, RATE, create_graph=create_graph)
    (gradient,) = torch.autograd.grad(stepped.params["mu.weight"].sum(), own["mu.weight"])
    # First order: ∂θ'/∂θ = I for each of the three tasks.
    assert torch.equal(gradient, torch.full_like(gradient, 3.0)) != create_graph


def test_a_step_descends():
    policy, params, _, batch = made_up()
    start = unadapted(policy, params, 3)
    stepped, losses = inner_step(policy, start, batch, 1e-3)
    assert (inner_losses(policy, stepped, batch) < losses).all()


def test_detached_adaptations_carry_no_graph():
    policy, params, _, batch = made_up(adaptation="maml")
    stepped = detach(inner_step(policy, unadapted(policy, params, 3), batch, RATE)[0])
    assert stepped.context is None and not any(value.requires_grad for value in stepped.params.values())
