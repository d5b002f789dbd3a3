import pytest
import torch

import rl.algorithm.inner_loop
from rl.algorithm.batch import prepare
from rl.algorithm.inner_loop import detach, inner_losses, inner_step, unadapted
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
