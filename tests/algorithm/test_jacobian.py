import pytest
import torch

from rl.algorithm.batch import prepare_updates
from rl.algorithm.context_jacobian import ContextJacobian
from rl.algorithm.inner_loop import Update, adapt
from rl.algorithm.jacobian import GraphJacobian, at_outputs, flatten, hessian_product, unflatten
from rl.policies import Categorical, Normal
from tests.support.helpers import (
    WITH_TRUE_DERIVATIVES,
    logits_of_choices,
    made_up_episodes,
    random_params,
    small_policy,
)

DOUBLE = torch.float64


def made_up(head, layer, adaptation, num_tasks=3, distinct=None, updates=1):
    policy = small_policy(head, layer, adaptation)
    episodes = [made_up_episodes(policy, num_tasks, seed=seed, distinct=distinct) for seed in range(updates + 1)]
    (*before, after), _ = prepare_updates(episodes, 0.9, 0.95, DOUBLE)
    return policy, flatten(random_params(policy)), before, after


def by_hand(policy, vector, before, after, first_order=False):
    return ContextJacobian(policy, vector, before, after.observations, Update(0.3, first_order))


def by_graph(policy, vector, before, after, first_order=False):
    def forward(params):
        (*_, adapted), losses = adapt(policy, params, before, Update(0.3, first_order), create_graph=True)
        return policy(*adapted, after.observations), losses

    return GraphJacobian(policy, vector, forward)


def kinds(adaptation):
    return (by_hand, by_graph) if adaptation == "cavia" else (by_graph,)


@pytest.mark.parametrize("head, layer, adaptation", WITH_TRUE_DERIVATIVES)
@pytest.mark.parametrize("distinct, updates", [(None, 1), (4, 1), (None, 3)])
def test_jvp_equals_finite_differences_and_vjp_is_its_transpose(head, layer, adaptation, distinct, updates):
    policy, vector, before, after = made_up(head, layer, adaptation, distinct=distinct, updates=updates)
    direction = flatten(random_params(policy, seed=9))
    h = 1e-6
    for kind in kinds(adaptation):
        jacobian = kind(policy, vector, before, after)
        tangents = jacobian.jvp(direction)
        above, below = (kind(policy, vector + s * direction, before, after).distribution for s in (h, -h))
        differences = [(a - b) / (2 * h) for a, b in zip(above, below, strict=True)]
        if head != "normal":
            # By hand the tangents are those of the logits, known up to a constant a row and choice.
            parts = zip(logits_of_choices(policy.architecture, next(iter(jacobian.distribution)).exp()),
                        logits_of_choices(policy.architecture, tangents[0]), strict=True)  # fmt: skip
            tangents = [torch.cat([part - (p * part).sum(-1, keepdim=True) for p, part in parts], -1)]
        generator = torch.Generator().manual_seed(0)
        cotangents = []
        for tangent, difference in zip(tangents, differences, strict=True):
            torch.testing.assert_close(tangent.expand_as(difference), difference, rtol=1e-6, atol=1e-7)
            cotangents.append(torch.randn(difference.shape, generator=generator, dtype=DOUBLE))
        if head != "normal":
            parts = logits_of_choices(policy.architecture, cotangents[0])
            cotangents[0] = torch.cat([part - part.mean(-1, keepdim=True) for part in parts], -1)
        # ⟨u, J v⟩ = ⟨Jᵀu, v⟩; cotangents that sum to zero do not see the constant.
        inner = sum((u * (v.expand_as(u))).sum() for u, v in zip(cotangents, jacobian.jvp(direction), strict=True))
        assert float(jacobian.vjp(cotangents) @ direction) == pytest.approx(float(inner), rel=1e-10)
        assert jacobian.nbytes > 0


@pytest.mark.parametrize("task_axis", [1, 2], ids=["one log_std", "a log_std a task"])
def test_the_second_derivative_of_the_normal_kl(task_axis):
    # ∂²KL/∂μ² = 1/σ² and ∂²KL/∂(log σ)² = 2, each divided by A = 2 since the divergence is averaged over dimensions.
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 3, 2, generator=generator, dtype=DOUBLE)
    log_std = torch.randn(task_axis, 1, 2, generator=generator, dtype=DOUBLE)
    weights = torch.rand(2, 3, generator=generator, dtype=DOUBLE)
    d_mean, d_log_std = torch.ones_like(mean), torch.ones_like(log_std)
    old = Normal(mean, log_std)
    losses, leaves, gradient = at_outputs(old, lambda distribution: (weights * distribution.kl(old)).sum(-1))
    assert losses.abs().max() < 1e-15 and all(part.abs().max() < 1e-15 for part in gradient)
    moved = hessian_product(gradient, leaves, (d_mean, d_log_std))
    torch.testing.assert_close(moved[0], (weights[..., None] / log_std.exp().square() / 2))
    # A log σ shared by all tasks gathers the weights of all of them.
    total = weights.sum().reshape(1) if task_axis == 1 else weights.sum(1)
    torch.testing.assert_close(moved[1], total[:, None, None].expand_as(log_std))


def test_the_second_derivative_of_the_categorical_kl():
    # In the logits: diag(p) − p pᵀ. Two equally likely actions: ¼ [[1, −1], [−1, 1]].
    old = Categorical(torch.log_softmax(torch.zeros(1, 1, 2, dtype=DOUBLE), -1))
    _, leaves, gradient = at_outputs(old, lambda distribution: distribution.kl(old).sum(-1))
    (moved,) = hessian_product(gradient, leaves, (torch.tensor([[[1.0, 0.0]]], dtype=DOUBLE),))
    torch.testing.assert_close(moved, torch.tensor([[[0.25, -0.25]]], dtype=DOUBLE))


def test_flat_vectors_follow_the_published_order():
    policy = small_policy("normal", "hard")
    params = random_params(policy)
    vector = flatten(params)
    assert vector.numel() == sum(value.numel() for value in params.values())
    assert torch.equal(vector[:2], params["sigma"])
    again = unflatten(policy, vector)
    assert list(again) == list(params) and all(torch.equal(again[name], params[name]) for name in params)
