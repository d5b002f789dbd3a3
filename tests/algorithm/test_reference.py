"""The fast path and the golden figures against the plain reference, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rl.algorithm import reference, trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.inner_objective import ratio
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from tests import conformance
from tests.support.helpers import COMBINATIONS, made_up_episodes, random_params, small_policy

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.npz"))


def close(found, expected, bound=1e-9):
    found, expected = (np.asarray(torch.as_tensor(value).detach()) for value in (found, expected))
    assert conformance.deviation(found, expected) <= bound


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_the_fast_path_is_the_reference(combination, first_order):
    policy = small_policy(*combination)
    params = random_params(policy)
    before, after = (made_up_episodes(policy, seed=seed) for seed in (1, 2))
    options, outer = Options(gamma=0.9, gae_lambda=0.95, fast_lr=0.3, first_order=first_order), trpo.Options(cg_iters=4)
    theta = reference.flatten(policy, params).requires_grad_()
    objectives = reference.Objectives(policy, theta, (before, after), options)
    loss, divergence = objectives(theta)
    chunk = Chunk(policy, theta.detach(), (before, after), options, 5, dtype=torch.float64)
    tasks = len(before.mask)
    close(chunk.loss / tasks, loss)
    close(chunk.gradient / tasks, torch.autograd.grad(loss, theta, retain_graph=True)[0])
    vector = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    close(chunk.kl_hessian_product(vector) / tasks, reference.hessian_product(divergence, theta, 0.0)(vector))
    elsewhere = theta.detach() + 0.01 * vector
    for found, expected in zip(chunk.evaluate(elsewhere), objectives(elsewhere), strict=False):
        close(found / tasks, expected)
    other = options._replace(first_order=not first_order)
    other_gradient = Chunk(policy, theta.detach(), (before, after), other, dtype=torch.float64).gradient
    assert conformance.deviation(other_gradient, chunk.gradient) > 1e-3
    stepped, figures = reference.step(policy, params, (before, after), options, outer)
    learner = MetaLearner(policy, options, trpo.TRPO(outer), dtype=torch.float64)
    fast, metrics = learner.step(params, before, after)
    assert figures["step_size"] == pytest.approx(metrics["trpo/step_size"])
    close(reference.flatten(policy, fast), reference.flatten(policy, stepped), 1e-6)


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_so_it_is_with_likelihood_ratios(combination):
    policy = small_policy(*combination)
    theta = reference.flatten(policy, random_params(policy)).requires_grad_()
    before, after = (made_up_episodes(policy, seed=seed) for seed in (1, 2))
    options = Options(gamma=0.9, gae_lambda=0.95, fast_lr=0.3, inner_objective="ratio")
    loss, _ = reference.Objectives(policy, theta, (before, after), options, ratio)(theta)
    expected = torch.autograd.grad(loss, theta)[0]
    chunk = Chunk(policy, theta.detach(), (before, after), options, dtype=torch.float64)
    close(chunk.gradient / len(before.mask), expected)
    # Another second derivative than that of the published objective.
    published = Chunk(
        policy, theta.detach(), (before, after), options._replace(inner_objective="score"), dtype=torch.float64
    )
    close(published.loss, chunk.loss)
    assert conformance.deviation(published.gradient.numpy(), chunk.gradient.numpy()) > 1e-3


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_reference_reproduces_the_golden_figures(path):
    golden, config = conformance.load(path, "config")
    policy = conformance.make_policy(conformance.architecture(config))
    params = {name: torch.from_numpy(golden[f"param/{name}"]) for name in policy.shapes}
    before, after = (conformance.episodes(golden, config, part) for part in ("train", "valid"))
    options = Options(gamma=config["gamma"], gae_lambda=config["tau"], fast_lr=config["fast_lr"])
    outer = trpo.Options(**{name: config[name] for name in trpo.Options._fields})
    theta = reference.flatten(policy, params).requires_grad_()
    objectives = reference.Objectives(policy, theta, (before, after), options)
    for k, (batch, _) in enumerate(objectives.tasks):
        loss = reference.reinforce(objectives.adapted(theta, [batch], 0), batch)
        close(loss.squeeze(), golden[f"expected/task{k}/inner_loss"])
    loss, divergence = objectives(theta)
    close(loss, golden["expected/surrogate_loss"])
    close(torch.autograd.grad(loss, theta, retain_graph=True)[0], golden["expected/surrogate_gradient"])
    product = reference.hessian_product(divergence, theta, outer.cg_damping)
    vector = torch.from_numpy(golden["input/hvp_vector"])
    close(product(vector), golden["expected/kl_hessian_vector_product"])
    stepped, figures = reference.step(policy, params, (before, after), options, outer)
    bound = conformance.AMPLIFIED.get(path.stem, conformance.STEP)
    for name, value in stepped.items():
        close(value, golden[f"expected/after_step/{name}"], bound)
    for name, value in figures.items():
        close(value, golden[f"expected/step_{name}"], bound)
