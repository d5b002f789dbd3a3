"""What credits exploration, several inner updates and PPO's loss: against the reference and finite differences."""

import itertools

import numpy as np
import pytest
import torch

from rl.algorithm import ppo, reference, trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.inner_objective import ratio
from rl.algorithm.jacobian import flatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from tests.support.chunks import DOUBLE, GraphChunk, assert_gradient_of_evaluate
from tests.support.helpers import COMBINATIONS, FAST, literal_forward, made_up_episodes, random_params, small_policy

CREDIT = {"pre_update_return": 0.7, "exploration_credit": 1.3, "entropy_bonus": 0.2}
WEIGHED = CREDIT | {"pre_update_kl": 0.3}
PROMP = {"clip_eps": 0.1, "inner_kl_penalty": 0.6, "inner_objective": "ratio"}
KINDS = [(Chunk, *made) for made in COMBINATIONS] + [(GraphChunk, "normal", "soft", "cavia")]
SOME = [(Chunk, "categorical", "hard", "cavia"), (Chunk, "normal", "soft", "maml"), KINDS[-1]]
GATED = [kind for kind in KINDS if kind[2] != "plain"]


ALL_AT_ONCE = [(kind, 2, WEIGHED | PROMP) for kind in KINDS]
EACH = itertools.product(SOME, (1, 3), ({}, CREDIT, WEIGHED, PROMP))


@pytest.mark.parametrize("kind, updates, options", [*ALL_AT_ONCE, *EACH])
def test_the_fast_path_is_the_reference(kind, updates, options):
    kind, head, layer, adaptation = kind
    policy = small_policy(head, layer, adaptation)
    episodes = [made_up_episodes(policy, seed=seed) for seed in range(updates + 1)]
    check_against_reference(kind, policy, episodes, Options(**FAST, fast_lr=0.3, **options))


def check_against_reference(kind, policy, episodes, options):
    """Loss, gradient, curvature, at θ_old and elsewhere."""
    theta = flatten(random_params(policy)).requires_grad_()
    objective = {"score": reference.reinforce, "ratio": ratio}[options.inner_objective]
    objectives = reference.Objectives(policy, theta, episodes, options, objective)
    count = len(episodes[0].mask)
    credit = torch.from_numpy(objectives.credit)
    chunk = kind(policy, theta.detach(), episodes, options, 5, credit=credit, dtype=DOUBLE)
    loss, divergence = objectives(theta)
    (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
    torch.testing.assert_close(chunk.loss / count, loss.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(chunk.gradient / count, gradient, rtol=1e-9, atol=1e-11)
    vector = torch.linspace(-1, 1, len(theta), dtype=DOUBLE)
    product = reference.hessian_product(divergence, theta, 0.0)(vector)
    torch.testing.assert_close(chunk.kl_hessian_product(vector) / count, product, rtol=1e-8, atol=1e-10)
    elsewhere = (theta.detach() + 0.01 * vector).requires_grad_()
    loss, divergence = objectives(elsewhere)
    (gradient,) = torch.autograd.grad(loss, elsewhere)
    found_loss, found_gradient = chunk.loss_and_gradient(elsewhere.detach())
    torch.testing.assert_close(found_loss / count, loss.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found_gradient / count, gradient, rtol=1e-9, atol=1e-11)
    evaluated = torch.stack(chunk.evaluate(elsewhere.detach())) / count
    torch.testing.assert_close(evaluated, torch.stack([loss, divergence]).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind, head, layer, adaptation", GATED)
def test_gates_that_do_not_read_the_context_are_the_literal_equations_and_their_derivatives(
    kind, head, layer, adaptation
):
    policy = small_policy(head, layer, adaptation, nm_without_context=True)
    params, episodes = random_params(policy), [made_up_episodes(policy, seed=seed) for seed in (0, 1)]
    observations = torch.from_numpy(episodes[0].observations).double().flatten(1, 2)
    size = policy.architecture.num_context_params
    context = torch.linspace(-1, 1, len(observations) * size, dtype=DOUBLE).view(-1, size) if size else None
    found = policy(params, context, observations)
    for k, rows in enumerate(observations):
        if head == "choices":
            break  # its outputs are logits of several choices, which other tests split
        literal = literal_forward(policy.architecture, params, None if context is None else context[k], rows)
        expected = literal.log_softmax(-1) if policy.head.discrete else literal
        torch.testing.assert_close(found[0][k], expected, rtol=1e-12, atol=1e-12)
    for bound, called in zip(policy.bind(params, context)(observations), found, strict=True):
        torch.testing.assert_close(bound, called, rtol=1e-12, atol=1e-12)
    check_against_reference(kind, policy, episodes, Options(**FAST, fast_lr=0.3))


@pytest.mark.parametrize("option", [*CREDIT, "inner_kl_penalty", "clip_eps"])
@pytest.mark.parametrize("kind, head, layer, adaptation", SOME)
def test_the_gradient_of_each_loss_equals_finite_differences(kind, head, layer, adaptation, option):
    policy = small_policy(head, layer, adaptation)
    theta = flatten(random_params(policy))
    episodes = [made_up_episodes(policy, seed=seed) for seed in (0, 1)]
    weight = 0.05 if option == "clip_eps" else 0.9
    credit = torch.tensor([1.0, -0.4, -0.6], dtype=DOUBLE)[: len(episodes[0].mask)]
    plain, chunk = (
        kind(policy, theta, episodes, options, credit=credit, dtype=DOUBLE)
        for options in (
            Options(**FAST, fast_lr=0.3),
            Options(**FAST, fast_lr=0.3, **{option: weight}),
        )
    )
    for vector in (theta, theta + 0.05 * flatten(random_params(policy, seed=4))):
        loss, gradient = chunk.loss_and_gradient(vector)
        assert_gradient_of_evaluate(policy, chunk, vector, gradient)
    assert not torch.equal(loss, plain.loss_and_gradient(vector)[0])  # away from θ_old each option matters


@pytest.mark.parametrize("kind, head, layer, adaptation", SOME)
def test_the_divergence_before_the_update_counts_as_often_as_its_weight_says(kind, head, layer, adaptation):
    policy = small_policy(head, layer, adaptation)
    theta = flatten(random_params(policy))
    episodes = [made_up_episodes(policy, seed=seed) for seed in (0, 1)]
    elsewhere = theta + 0.05 * flatten(random_params(policy, seed=4))
    losses, divergences, products = [], [], []
    for weight in (0.0, 1.0, 0.3):
        options = Options(**FAST, fast_lr=0.3, entropy_bonus=0.2, pre_update_kl=weight)
        chunk = kind(policy, theta, episodes, options, 5, dtype=DOUBLE)
        loss, divergence = chunk.evaluate(elsewhere)
        for found, value in zip(
            (losses, divergences, products), (loss, divergence, chunk.kl_hessian_product(elsewhere)), strict=True
        ):
            found.append(value)
    assert losses[0] == losses[1] == losses[2] and divergences[0] < divergences[1]
    for after, sum_of_both, weighed in (divergences, products):
        torch.testing.assert_close(weighed, 0.7 * after + 0.3 * sum_of_both, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("block", [1, 2, None])
def test_credit_is_standardised_over_all_tasks_whatever_the_blocks(block):
    policy = small_policy()
    params = random_params(policy)
    episodes = [made_up_episodes(policy, 5, seed=seed) for seed in (0, 1)]
    options, outer = Options(**FAST, fast_lr=0.3, **CREDIT), trpo.Options(cg_iters=3)
    learner = MetaLearner(policy, options, trpo.TRPO(outer), block=block, dtype=DOUBLE)
    moved, metrics = learner.step(params, *episodes)
    expected, figures = reference.step(policy, params, episodes, options, outer)
    assert metrics["trpo/step_size"] == pytest.approx(figures["step_size"]) and figures["step_size"] > 0
    torch.testing.assert_close(flatten(moved), reference.flatten(policy, expected), rtol=1e-6, atol=1e-8)


def test_ppo_takes_several_steps_of_adam_and_keeps_its_moments():
    policy = small_policy()
    params, options = random_params(policy), Options(**FAST, fast_lr=0.3, **PROMP)
    episodes = [made_up_episodes(policy, seed=seed) for seed in (0, 1)]
    learner = MetaLearner(policy, options, ppo.PPO(ppo.Options(3, 0.01)), dtype=DOUBLE)
    again = MetaLearner(policy, options, ppo.PPO(ppo.Options(3, 0.01)), dtype=DOUBLE)
    first, metrics = learner.step(params, *episodes)
    theta = flatten(params)
    objectives = reference.Objectives(policy, theta, episodes, options, ratio)
    m = v = torch.zeros_like(theta)
    for t in (1, 2, 3):  # arXiv 1412.6980, algorithm 1
        own = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objectives(own)[0], own)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
        theta = theta - 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(flatten(first), theta, rtol=1e-8, atol=1e-10)
    assert metrics["ppo/kl"] > 0 and metrics["ppo/improvement"] > 0
    again.state = {name: value.clone() for name, value in learner.state.items()}
    second, resumed = (each.step(first, *episodes)[0] for each in (learner, again))
    assert torch.equal(flatten(second), flatten(resumed))
    assert not torch.equal(flatten(second), flatten(again.step(params, *episodes)[0]))


def test_ppo_stays_where_numbers_are_not_finite():
    policy = small_policy()
    params = random_params(policy)
    before, after = (made_up_episodes(policy, seed=seed) for seed in (0, 1))
    after.rewards[0, 0, 0] = np.inf
    learner = MetaLearner(policy, Options(**FAST, fast_lr=0.3), ppo.PPO(ppo.Options()))
    moved, metrics = learner.step(params, before, after)
    assert moved is params and learner.state and not any(value.any() for value in learner.state.values())
    assert np.isnan(metrics["ppo/gradient_norm"]) and metrics["ppo/step_size"] == 0


class Fixed:
    """An outer objective that answers the same whatever θ is."""

    def __init__(self, slope=1.0, kl=0.1):
        self.loss, self.gradient, self.kl = 1.0, torch.full((3,), slope), kl

    def loss_and_gradient(self, theta):
        return self.loss, self.gradient

    def kl_hessian_product(self, vector):
        raise NotImplementedError

    def evaluate(self, theta):
        return self.loss - 0.1, self.kl


@pytest.mark.parametrize("objective", [Fixed(slope=1e25), Fixed(kl=np.inf), Fixed(kl=np.nan)])
def test_ppo_stays_where_moments_or_the_divergence_are_not_finite(objective):
    # The square of 1e25 is beyond float32; with such moments the run could not be resumed.
    step, theta = ppo.PPO(ppo.Options()), torch.ones(3)
    state = step.init(theta)
    moved, kept, metrics = step.step(theta, state, objective)
    assert moved is theta and kept is state and np.isnan(metrics["ppo/kl"]) and metrics["ppo/step_size"] == 0


def test_ppo_moves_by_a_large_gradient_whose_norm_overflows():
    step, theta = ppo.PPO(ppo.Options()), torch.ones(3)
    moved, state, metrics = step.step(theta, step.init(theta), Fixed(slope=1.5e19))
    assert (moved < theta).all() and all(value.isfinite().all() for value in state.values())
    assert metrics["ppo/gradient_norm"] == pytest.approx(1.5e19 * 3**0.5)


@pytest.mark.parametrize("block", [2, None])
@pytest.mark.parametrize("reward", [-0.01, 0.1, 0.3, 0.7])
def test_tasks_with_the_same_return_get_no_credit(block, reward):
    # Their mean is off by rounding: a deviation of 1e-18 must not be made 1.
    policy = small_policy()
    params = random_params(policy)
    before, after = (made_up_episodes(policy, 20, seed=seed) for seed in (0, 1))
    after.rewards[:] = 0
    after.rewards[:, 0] = reward
    steps = [
        MetaLearner(policy, Options(**FAST, fast_lr=0.3, exploration_credit=weight, entropy_bonus=1e-9),
                    trpo.TRPO(trpo.Options(cg_iters=2)), block=block, dtype=DOUBLE).step(params, before, after)[0]
        for weight in (0.0, 1.0)
    ]  # fmt: skip
    assert torch.equal(*map(flatten, steps))
    assert not reference.standardized(np.full(20, reward)).any()
