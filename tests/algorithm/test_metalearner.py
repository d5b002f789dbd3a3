import math

import numpy as np
import pytest
import torch

from rl.algorithm import reference, trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from tests.support.helpers import FAST, WITH_TRUE_DERIVATIVES, made_up_episodes, random_params, small_policy

OPTIONS = Options(fast_lr=0.3, **FAST)
OUTER = trpo.Options(cg_damping=1e-3)
DOUBLE = torch.float64


def made_up(head="normal", layer="soft", adaptation="cavia", num_tasks=3, **sizes):
    policy = small_policy(head, layer, adaptation, **sizes)
    before, after = (made_up_episodes(policy, num_tasks, seed=seed) for seed in (0, 1))
    return policy, random_params(policy), before, after


def chunk_of(policy, params, before, after, products=11):
    return Chunk(policy, flatten(params), (before, after), OPTIONS, products, dtype=DOUBLE)


def learner_of(policy, outer=OUTER, dtype=DOUBLE, **compute):
    return MetaLearner(policy, OPTIONS, trpo.TRPO(outer), dtype=dtype, **compute)


# A straight-through gradient need not point downhill: on three tasks, no step along it may be acceptable.
@pytest.mark.parametrize("head, layer, adaptation", WITH_TRUE_DERIVATIVES)
def test_an_accepted_step_improves_within_the_trust_region(head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    new, metrics = learner_of(policy).step(params, before, after)
    assert metrics["trpo/step_size"] > 0 and list(new) == list(params)
    chunk = chunk_of(policy, params, before, after)
    twin = reference.Objectives(policy, flatten(params), (before, after), OPTIONS)
    (loss_before, _), (loss, divergence) = (
        [value.detach() for value in twin(flatten(weights))] for weights in (params, new)
    )
    assert metrics["loss/outer_rl"] == pytest.approx(float(loss_before), rel=1e-9)
    assert metrics["loss/inner_rl"] == pytest.approx(float(chunk.inner_losses.mean()), rel=1e-9)
    assert metrics["loss/outer_rl"] - metrics["trpo/improvement"] == pytest.approx(float(loss), rel=1e-9)
    assert metrics["trpo/kl"] == pytest.approx(float(divergence), rel=1e-9)
    assert loss < loss_before and 0 < divergence < OUTER.max_kl
    assert metrics["trpo/step_size"] == pytest.approx(0.8 ** metrics["trpo/backtracks"])
    if layer == "hard":
        # No gradient reaches the modulators of hard gates: they stay as they were drawn.
        assert all(torch.equal(new[name], params[name]) for name in params if "_nm" in name)
    assert not torch.equal(flatten(new), flatten(params))


def test_the_step_is_the_natural_gradient():
    policy, params, before, after = made_up(num_tasks=2, layer="plain")
    outer = OUTER._replace(cg_iters=400, cg_damping=0.1)
    new, metrics = learner_of(policy, outer).step(params, before, after)
    chunk, vector = chunk_of(policy, params, before, after), flatten(params)
    hessian = torch.stack([chunk.kl_hessian_product(row) for row in torch.eye(vector.numel(), dtype=DOUBLE)]) / 2
    hessian += outer.cg_damping * torch.eye(vector.numel(), dtype=DOUBLE)
    x = torch.linalg.solve(hessian, chunk.gradient / 2)
    step = metrics["trpo/step_size"] * x / torch.sqrt(0.5 * x @ hessian @ x / outer.max_kl)
    # Conjugate gradient stops at a residual of 1e-5, and no eigenvalue lies below the damping: x is known to 1e-4.
    error = (vector - flatten(new) - step).norm() / step.norm()
    assert error < 2 * 1e-4 / x.norm() < 1e-3
    assert metrics["trpo/gradient_norm"] == pytest.approx(float(chunk.gradient.norm() / 2))


def test_threads_change_no_bit_and_rows_only_the_last_ones():
    policy = small_policy("normal", "soft")
    params = random_params(policy, dtype=torch.float32)
    before, after = (made_up_episodes(policy, num_tasks=7, seed=seed) for seed in (0, 1))

    def step(**compute):
        return learner_of(policy, dtype=torch.float32, **compute).step(params, before, after)

    # 6 · 4 steps a task: chunks of one task, of two, of all seven.
    reference, metrics = step(rows=24, threads=1)
    for threads in (2, 3):
        new, other = step(rows=24, threads=threads)
        assert other == metrics
        assert all(torch.equal(new[name], reference[name]) for name in params)
    doubles = {name: value.double() for name, value in params.items()}
    # Three iterations of conjugate gradient hardly amplify rounding; ten would.
    outer = OUTER._replace(cg_iters=3)
    steps = [
        flatten(learner_of(policy, outer, rows=rows, threads=2).step(doubles, before, after)[0])
        for rows in (24, 48, 168)
    ]
    assert not torch.equal(steps[0], flatten(doubles))
    for other in steps[1:]:
        torch.testing.assert_close(other, steps[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
def test_memory_changes_no_bit(adaptation):
    policy, params, before, after = made_up(adaptation=adaptation)
    size = chunk_of(policy, params, before.tasks(0, 1), after.tasks(0, 1)).terms[0].curvature.jacobian.nbytes
    # Room for all three chunks, for two of them (any two), for none.
    steps = [
        learner_of(policy, memory=memory, rows=1, threads=threads).step(params, before, after)
        for memory, threads in ((float("inf"), 1), (2 * size, 3), (0, 2))
    ]
    for new, metrics in steps[1:]:
        assert metrics == steps[0][1]
        assert torch.equal(flatten(new), flatten(steps[0][0]))


class Descent:
    """An outer step of two plain gradient steps; its state counts them."""

    name = "descent"
    products = 2

    def init(self, theta):
        return {"count": torch.tensor(0)}

    def step(self, theta, state, objective):
        loss, first = objective.loss, theta - 0.01 * objective.gradient
        between, gradient = objective.loss_and_gradient(first)
        second = first - 0.01 * gradient
        after, kl = objective.evaluate(second)
        return second, {"count": state["count"] + 2}, {"loss": loss, "between": between, "after": after, "kl": kl}


@pytest.mark.parametrize("head, layer, adaptation", WITH_TRUE_DERIVATIVES)
def test_another_outer_step_with_several_gradients(head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    learner = MetaLearner(policy, OPTIONS, Descent(), rows=48, dtype=DOUBLE)
    twin = reference.Objectives(policy, flatten(params), (before, after), OPTIONS)
    new, metrics = learner.step(params, before, after)
    vector = flatten(params)
    for _ in range(2):
        own = vector.clone().requires_grad_()
        vector = vector - 0.01 * torch.autograd.grad(twin(own)[0], own)[0]
    torch.testing.assert_close(flatten(new), vector, rtol=1e-10, atol=1e-12)
    old, between, loss, kl = (metrics[name] for name in ("loss", "between", "after", "kl"))
    assert metrics["loss/outer_rl"] == old > between > loss and kl > 0
    # A second iteration goes on from the state of the first.
    assert learner.state["count"] == 2
    assert learner.step(new, before, after)[0] is not new and learner.state["count"] == 4


def test_chunks_cover_the_tasks_in_order():
    policy, params, before, after = made_up(num_tasks=7)
    for rows, sizes in ((1, [1] * 7), (48, [2, 2, 2, 1]), (10**6, [7])):
        compute = learner_of(policy, rows=rows).compute
        chunks = MetaObjective(compute, OPTIONS, flatten(params), (before, after)).chunks
        assert [chunk.terms[0].before[0].weights.shape[0] for chunk in chunks] == sizes
        found = torch.cat([chunk.terms[0].batch.actions for chunk in chunks])
        assert torch.equal(found, torch.from_numpy(after.actions).flatten(1, 2))


def test_the_result_keeps_the_parameters_type():
    policy, params, before, after = made_up()
    singles = {name: value.float() for name, value in params.items()}
    new, _ = learner_of(policy).step(singles, before, after)
    assert {value.dtype for value in new.values()} == {torch.float32}
    assert all(value.grad_fn is None and not value.requires_grad for value in new.values())


def test_line_search_starts_at_the_border_of_the_trust_region(monkeypatch):
    # For a quadratic model the full step's divergence is δ; with a small δ the model is nearly exact.
    policy, params, before, after = made_up(layer="plain")
    seen = []
    search = trpo.line_search

    def spy(evaluate, *arguments):
        seen.append(evaluate(1.0)[1])
        return search(evaluate, *arguments)

    monkeypatch.setattr(trpo, "line_search", spy)
    learner_of(policy, OUTER._replace(max_kl=1e-6, cg_damping=0.0)).step(params, before, after)
    assert seen[0] == pytest.approx(1e-6, rel=0.02)


def replaced(name, function):
    """What replaces a method of `Chunk`."""
    return lambda patch, params, before: patch.setattr(Chunk, name, function)


def evaluating_to(loss, divergence):
    figures = torch.tensor([loss, divergence], dtype=DOUBLE)
    return replaced("evaluate", lambda chunk, theta: tuple(figures))


@pytest.mark.parametrize(
    "wrong, backtracks, gradient",
    [
        (evaluating_to(1e6, 0.0), 15, "positive"),  # the line search finds nothing
        (evaluating_to(-1e6, 1.0), 15, "positive"),  # nothing within the divergence allowed
        (evaluating_to(math.nan, math.nan), 15, "positive"),
        (replaced("kl_hessian_product", lambda chunk, vector: -vector), 0, "positive"),
        (replaced("kl_hessian_product", lambda chunk, vector: vector * math.nan), 0, "nan"),
        (lambda patch, params, before: before.rewards.__setitem__((1, 0, 0), np.inf), 0, "nan"),
        (lambda patch, params, before: params["mu.weight"].mul_(math.inf), 0, "nan"),
    ],
)
def test_no_step_where_figures_are_bad(monkeypatch, wrong, backtracks, gradient):
    policy, params, before, after = made_up()
    wrong(monkeypatch, params, before)
    metrics = refused(policy, params, before, after)
    assert metrics["trpo/backtracks"] == backtracks
    norm = metrics["trpo/gradient_norm"]
    assert math.isnan(norm) if gradient == "nan" else norm > 0


def refused(policy, params, before, after):
    """The metrics of a step that is not taken."""
    new, metrics = learner_of(policy).step(params, before, after)
    assert new is params and metrics["trpo/step_size"] == 0.0 and metrics["trpo/kl"] == 0.0
    return metrics


def test_no_step_without_rewards():
    # All advantages are zero, so is the gradient: conjugate gradient stops at x = 0, which has no curvature.
    policy, params, before, after = made_up()
    empty = [type(e)(e.observations, e.actions, np.zeros_like(e.rewards), e.mask) for e in (before, after)]
    metrics = refused(policy, params, *empty)
    assert metrics["trpo/gradient_norm"] == 0.0 and metrics["baseline/ridge_retries"] == 0
