import numpy as np
import pytest
import torch
from rl.algorithm.jacobians import flatten

from rl.algorithm import trpo
from rl.algorithm.chunks import Chunk, Options
from rl.algorithm.metalearner import MetaLearner
from tests.support.helpers import FAST, WITH_TRUE_DERIVATIVES, Twin, made_up_episodes, random_params, small_policy

OPTIONS = Options(fast_lr=0.3, cg_damping=1e-3, **FAST)
DOUBLE = torch.float64


def made_up(head="normal", layer="soft", adaptation="cavia", num_tasks=3, **sizes):
    policy = small_policy(head, layer, adaptation, **sizes)
    before, after = (made_up_episodes(policy, num_tasks, seed=seed) for seed in (0, 1))
    return policy, random_params(policy), before, after


def chunk_of(policy, before, after, options=OPTIONS):
    return Chunk(policy, before, after, options, DOUBLE, "cpu")


# A straight-through gradient need not point downhill: on three tasks, no step along it may be acceptable.
@pytest.mark.parametrize("head, layer, adaptation", WITH_TRUE_DERIVATIVES)
def test_an_accepted_step_improves_within_the_trust_region(head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    new, report = MetaLearner(policy, OPTIONS, dtype=DOUBLE).step(params, before, after)
    assert report.accepted and list(new) == list(params)
    chunk = chunk_of(policy, before, after)
    twin = Twin(policy, before, after, chunk, flatten(params))
    (loss_before, _), (loss, divergence) = (
        [value.detach() for value in twin(flatten(weights))] for weights in (params, new)
    )
    assert report.surrogate_before == pytest.approx(float(loss_before), rel=1e-9)
    assert report.surrogate_after == pytest.approx(float(loss), rel=1e-9)
    assert report.kl == pytest.approx(float(divergence), rel=1e-9)
    assert loss < loss_before and 0 < divergence < OPTIONS.max_kl
    assert report.step_size == pytest.approx(0.8**report.backtracks)
    if layer == "hard":
        # No gradient reaches the modulators of hard gates: they stay as they were drawn.
        assert all(torch.equal(new[name], params[name]) for name in params if "_nm" in name)
    assert not torch.equal(flatten(new), flatten(params))


def test_the_step_is_the_natural_gradient():
    policy, params, before, after = made_up(num_tasks=2, layer="plain")
    options = OPTIONS._replace(cg_iters=400, cg_damping=0.1)
    new, report = MetaLearner(policy, options, dtype=DOUBLE).step(params, before, after)
    chunk = chunk_of(policy, before, after)
    vector = flatten(params)
    _, gradient, _ = chunk.linearize(vector)
    hessian = torch.stack([chunk.product(row) for row in torch.eye(vector.numel(), dtype=DOUBLE)]) / 2
    hessian += options.cg_damping * torch.eye(vector.numel(), dtype=DOUBLE)
    x = torch.linalg.solve(hessian, gradient / 2)
    full = x / torch.sqrt(0.5 * x @ hessian @ x / options.max_kl)
    # Conjugate gradient stops at a residual of 1e-5, and no eigenvalue lies below the damping: x is known to 1e-4.
    error = (vector - flatten(new) - report.step_size * full).norm() / (report.step_size * full).norm()
    assert error < 2 * 1e-4 / x.norm() < 1e-3
    assert report.gradient_norm == pytest.approx(float(gradient.norm() / 2))


def test_threads_change_no_bit_and_rows_only_the_last_ones():
    policy = small_policy("normal", "soft")
    params = random_params(policy, dtype=torch.float32)
    before, after = (made_up_episodes(policy, num_tasks=7, seed=seed) for seed in (0, 1))

    def step(**options):
        return MetaLearner(policy, OPTIONS, **options).step(params, before, after)

    # 6 · 4 steps a task: chunks of one task, of two, of all seven.
    reference, report = step(rows=24, threads=1)
    for threads in (2, 3):
        new, other = step(rows=24, threads=threads)
        assert other == report
        assert all(torch.equal(new[name], reference[name]) for name in params)
    doubles = {name: value.double() for name, value in params.items()}
    # Three iterations of conjugate gradient hardly amplify rounding; ten would.
    options = OPTIONS._replace(cg_iters=3)
    steps = [
        flatten(MetaLearner(policy, options, rows=rows, threads=2, dtype=DOUBLE).step(doubles, before, after)[0])
        for rows in (24, 48, 168)
    ]
    assert not torch.equal(steps[0], flatten(doubles))
    for other in steps[1:]:
        torch.testing.assert_close(other, steps[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
def test_memory_changes_no_bit(adaptation):
    policy, params, before, after = made_up(adaptation=adaptation, num_tasks=5)
    vector, one = flatten(params), chunk_of(policy, before.tasks(0, 1), after.tasks(0, 1))
    one.linearize(vector)
    size = one.kept.jacobian.nbytes
    # Room for all five chunks, for two of them (any two), for none.
    steps = [
        MetaLearner(policy, OPTIONS, memory=memory, rows=1, threads=threads, dtype=DOUBLE).step(params, before, after)
        for memory, threads in ((float("inf"), 1), (2 * size, 1), (2 * size, 3), (0, 2))
    ]
    for new, report in steps[1:]:
        assert report == steps[0][1]
        assert torch.equal(flatten(new), flatten(steps[0][0]))


def test_chunks_cover_the_tasks_in_order():
    policy, params, before, after = made_up(num_tasks=7)
    for rows, sizes in ((1, [1] * 7), (48, [2, 2, 2, 1]), (10**6, [7])):
        learner = MetaLearner(policy, OPTIONS, rows=rows, dtype=DOUBLE)
        learner.step(params, before, after)
        chunks = learner.blocks.chunks
        assert [chunk.before.weights.shape[0] for chunk in chunks] == sizes
        found = torch.cat([chunk.after.actions for chunk in chunks])
        assert torch.equal(found, torch.from_numpy(after.actions).flatten(1, 2))


def test_the_result_keeps_the_parameters_type():
    policy, params, before, after = made_up()
    singles = {name: value.float() for name, value in params.items()}
    new, _ = MetaLearner(policy, OPTIONS, dtype=DOUBLE).step(singles, before, after)
    assert {value.dtype for value in new.values()} == {torch.float32}
    assert all(value.grad_fn is None and not value.requires_grad for value in new.values())


def refused(monkeypatch, options=OPTIONS, product=None, evaluate=None):
    policy, params, before, after = made_up()
    if product is not None:
        monkeypatch.setattr(Chunk, "product", product)
    if evaluate is not None:
        monkeypatch.setattr(Chunk, "evaluate", evaluate)
    new, report = MetaLearner(policy, options, dtype=DOUBLE).step(params, before, after)
    assert not report.accepted and report.step_size == 0.0 and report.kl == 0.0
    assert report.surrogate_after == report.surrogate_before
    assert all(torch.equal(new[name], params[name]) for name in params)
    return report


def assert_rejected(policy, params, before, after):
    new, report = MetaLearner(policy, OPTIONS, dtype=DOUBLE).step(params, before, after)
    assert report.rejected_nonfinite and not report.accepted and report.kl == 0.0 and report.backtracks == 0
    assert new is params


def test_no_step_where_the_line_search_finds_none(monkeypatch):
    worse = torch.tensor(1e6, dtype=DOUBLE)
    report = refused(monkeypatch, evaluate=lambda chunk, vector: (worse, 0 * worse))
    assert report.backtracks == 15


def test_no_step_where_the_divergence_is_too_large(monkeypatch):
    better, far = torch.tensor(-1e6, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE)
    report = refused(monkeypatch, OPTIONS._replace(ls_max_steps=3), evaluate=lambda chunk, vector: (better, far))
    assert report.backtracks == 3


def test_no_step_where_the_curvature_is_not_positive(monkeypatch):
    report = refused(monkeypatch, product=lambda chunk, vector: -vector)
    assert report.backtracks == 0


def test_no_step_where_the_curvature_is_not_finite(monkeypatch):
    monkeypatch.setattr(Chunk, "product", lambda chunk, vector: vector * float("nan"))
    assert_rejected(*made_up())


def test_no_step_where_the_loss_is_not_finite(monkeypatch):
    nan = torch.tensor(float("nan"), dtype=DOUBLE)
    refused(monkeypatch, evaluate=lambda chunk, vector: (nan, nan))


def test_no_step_without_rewards():
    # All advantages are zero, so is the gradient: conjugate gradient stops at x = 0, which has no curvature.
    policy, params, before, after = made_up()
    empty = [type(e)(e.observations, e.actions, np.zeros_like(e.rewards), e.mask) for e in (before, after)]
    new, report = MetaLearner(policy, OPTIONS, dtype=DOUBLE).step(params, *empty)
    assert not report.accepted and report.gradient_norm == 0.0 and report.ridge_retries == 0
    assert all(torch.equal(new[name], params[name]) for name in params)


def test_no_step_where_rewards_are_not_finite():
    policy, params, before, after = made_up()
    before.rewards[1, 0, 0] = np.inf
    assert_rejected(policy, params, before, after)


def test_no_step_where_the_gradient_is_not_finite():
    policy, params, before, after = made_up()
    params["mu.weight"] = params["mu.weight"] * float("inf")
    assert_rejected(policy, params, before, after)


def test_line_search_starts_at_the_border_of_the_trust_region(monkeypatch):
    # For a quadratic model the full step's divergence is δ; with a small δ the model is nearly exact.
    policy, params, before, after = made_up(layer="plain")
    seen = []
    search = trpo.line_search

    def spy(evaluate, *arguments):
        seen.append(evaluate(1.0)[1])
        return search(evaluate, *arguments)

    monkeypatch.setattr(trpo, "line_search", spy)
    MetaLearner(policy, OPTIONS._replace(max_kl=1e-6, cg_damping=0.0), dtype=DOUBLE).step(params, before, after)
    assert seen[0] == pytest.approx(1e-6, rel=0.02)
