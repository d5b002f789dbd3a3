"""An environment, a gate, an inner objective, an outer step and a term, each added as CONTRIBUTING says: one row or one
class, and nothing else knows of it. What the options can name is trained with, evaluated and drawn.
"""

import json
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from rl import envs, main, plot, test
from rl.algorithm import reference
from rl.algorithm.batch import prepare_updates
from rl.algorithm.inner_objective import INNER_OBJECTIVES
from rl.algorithm.jacobian import flatten, unflatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from rl.algorithm.outer_step import OuterStep
from rl.algorithm.outer_steps import OUTER_STEPS, Row
from rl.algorithm.terms import Budget, Unadapted
from rl.envs import check
from rl.envs.contract import POINTS
from rl.evaluation.runs import read_evaluation
from rl.policies.elementwise import GATES, NONLINEARITIES, Elementwise
from tests.support import corridor_family
from tests.support.chunks import assert_gradient_of_evaluate
from tests.support.helpers import FAST, made_up_episodes, only_run, random_params, small_policy

TINY = [
    "--env-name", "TabularMDP-v0",
    "--num-batches", "2", "--meta-batch-size", "2", "--fast-batch-size", "3",
    "--num-test-tasks", "3", "--test-batch-size", "3",
    "--num-test-steps", "1", "--test-freq", "1", "--hidden-size", "8", "--nm-size", "3", "--num-workers", "0",
    "--neuromodulation",
]  # fmt: skip


def bounded_score(distribution, batch):
    """REINFORCE with advantages that are bounded by 1."""
    return -(batch.weights * batch.advantages.tanh() * batch.log_prob(distribution)).sum(-1)


class GradientOptions(NamedTuple):
    learning_rate: float


class GradientStep:
    """θ ← θ − rate · ∇, whatever comes of it; the state counts the steps."""

    name = "gradient"
    products = 0

    def __init__(self, options):
        self.rate = options.learning_rate

    def init(self, theta):
        return {"steps": torch.tensor(0)}

    def step(self, theta, state, objective):
        count, norm = state["steps"] + 1, float(objective.gradient.norm())
        moved = theta - self.rate * objective.gradient
        _, kl = objective.evaluate(moved)
        metrics = {"kl": kl, "step_size": self.rate * norm, "gradient_norm": norm, "steps": int(count)}
        return moved, {"steps": count}, {f"gradient/{name}": value for name, value in metrics.items()}


class Calm(Unadapted):
    """Against entropy: a loss that, of a normal policy, does not depend on its means."""

    def loss_of(self, distribution):
        return (self.weights * distribution.entropy()).sum()


def trained(folder, *options):
    """(the log folder, the last policy's path)"""
    assert main.program([*TINY, *options, "--logdir", str(folder / "logs"), "--savedir", str(folder / "saves")]) == 0
    return only_run(folder / "logs"), only_run(folder / "saves") / "policy-1.pt"


def evaluated(folder, run, policy, *options):
    """The evaluation's folder."""
    line = [str(run / "config.json"), str(policy), "--num-workers", "0", "--logdir", str(folder / "evaluation")]
    assert test.main([*line, *options]) == 0
    return only_run(folder / "evaluation")


def test_a_folder_and_a_row_make_an_environment(monkeypatch, tmp_path, capsys):
    with corridor_family.installed(tmp_path) as file:
        line = ["--env-name", corridor_family.ID, "--env-config-path", str(file)]
        assert main.program([*TINY, *line, "--logdir", str(tmp_path)]) == 2
        assert corridor_family.ID in capsys.readouterr().err
        monkeypatch.setitem(envs.REGISTRY, corridor_family.ID, envs.Row(corridor_family.ROW))
        drawn_family(tmp_path, capsys, line)


def test_an_environment_of_ones_own_needs_no_row(tmp_path, capsys):
    with corridor_family.installed(tmp_path) as file:
        drawn_family(tmp_path, capsys, ["--env-name", corridor_family.NAME, "--env-config-path", str(file)])
        assert check.main([corridor_family.NAME, "--env-config-path", str(file)]) == 0
        assert capsys.readouterr().out.count("ok: ") == len(POINTS)
        assert check.main([corridor_family.NAME]) == 2
        assert "needs a configuration file: --env-config-path" in capsys.readouterr().err


def drawn_family(folder, capsys, line):
    """Train in corridors, evaluate with activations, and draw the trajectories as the family does."""
    run, policy = trained(folder, *line)
    evaluation = evaluated(folder, run, policy, "--activations", "2")
    read = read_evaluation(evaluation)
    assert read.environment.endswith("orridor-v0 of 5 cells") and read.label(0) == f"to cell {read.tasks[0]['cell']}"
    rewards = np.load(evaluation / "rewards.npy")
    assert (envs.success(line[1], rewards) == (rewards.sum(axis=1) > 0)).all()
    with np.load(evaluation / "episodes.npz") as episodes:
        cells = episodes["info.cell"]
    assert cells.shape == (3, 10, 2, 2)
    activations = np.load(evaluation / "activations.npy")
    assert activations.shape[:4] == cells.shape and activations.any()
    output = folder / "drawn"
    capsys.readouterr()
    assert plot.main(["trajectories", str(evaluation), "--output", str(output)]) == 0
    assert "tasks, the first episode of each, after 0 to 1 updates" in capsys.readouterr().out
    assert output.with_suffix(".png").is_file()
    rows = np.loadtxt(output.with_suffix(".csv"), np.int64, delimiter=",", skiprows=1)
    assert len(rows) and all(cells[task, -1, 0, updates] == last for task, updates, last in rows)


@pytest.mark.parametrize(
    "table, option",
    [(GATES, "--nm-gate"), (NONLINEARITIES, "--nonlinearity")],
    ids=["gate", "nonlinearity"],
)
def test_a_row_makes_a_gate_or_a_nonlinearity(table, option, monkeypatch, tmp_path, capsys):
    line = [option, "softsign"]
    assert main.program([*TINY, *line, "--logdir", str(tmp_path)]) == 2
    assert "softsign" in capsys.readouterr().err
    # Without derivatives of its own.
    monkeypatch.setitem(table, "softsign", Elementwise(torch.nn.functional.softsign, label="rational"))
    run, policy = trained(tmp_path, *line)
    evaluation = evaluated(tmp_path, run, policy)
    if table is GATES:
        output = tmp_path / "pictures"
        assert plot.main(["gates", str(evaluation), "--output", str(output / "gates")]) == 0
        assert plot.main(["adaptation", str(evaluation), "--output", str(output / "adaptation")]) == 0
        assert "neuromodulated CAVIA, rational gates" in capsys.readouterr().out
        assert {path.name for path in output.glob("*.png")} == {"gates.png", "adaptation.png"}


def test_a_row_makes_an_inner_objective(monkeypatch, tmp_path, capsys):
    line = ["--inner-objective", "bounded"]
    assert main.program([*TINY, *line, "--logdir", str(tmp_path)]) == 2
    assert "bounded" in capsys.readouterr().err
    monkeypatch.setitem(INNER_OBJECTIVES, "bounded", bounded_score)
    run, policy = trained(tmp_path, *line)
    assert json.loads((run / "config.json").read_text())["inner_objective"] == "bounded"
    _, published = trained(tmp_path / "published")
    saved, other = (torch.load(path, weights_only=True) for path in (policy, published))
    assert any(not torch.equal(saved[name], other[name]) for name in saved)
    evaluation = evaluated(tmp_path, run, policy)
    output = tmp_path / "pictures" / "adaptation"
    assert plot.main(["adaptation", str(evaluation), "--output", str(output)]) == 0
    assert output.with_suffix(".png").is_file()


def test_a_row_makes_an_outer_step(monkeypatch, tmp_path, capsys):
    line = ["--outer-step", "gradient", "--learning-rate", "0.2"]
    assert main.program([*TINY, *line, "--logdir", str(tmp_path)]) == 2
    assert "gradient" in capsys.readouterr().err
    # An option may be shared with other outer steps, those of others are refused.
    monkeypatch.setitem(OUTER_STEPS, "gradient", Row(GradientStep, GradientOptions))
    assert main.program([*TINY, *line, "--max-kl", "0.1", "--logdir", str(tmp_path)]) == 2
    assert "--max-kl: is of --outer-step trpo" in capsys.readouterr().err
    run, policy = trained(tmp_path, *line)
    found = pd.read_csv(run / "progress.csv")
    assert list(found["gradient/steps"]) == [1, 2] and (found["gradient/kl"] > 0).all()
    assert not found["gradient/no_update"].any() and not found["gradient/rejected_nonfinite"].any()
    assert main.program(["--resume", str(run), "--num-batches", "3", "--num-workers", "0"]) == 0
    assert list(pd.read_csv(run / "progress.csv")["gradient/steps"]) == [1, 2, 3]
    evaluation = evaluated(tmp_path, run, policy)
    output = tmp_path / "pictures"
    assert plot.main(["curves", str(run), "--output", str(output / "curves")]) == 0
    assert plot.main(["adaptation", str(evaluation), "--output", str(output / "adaptation")]) == 0
    assert {path.name for path in output.glob("*.png")} == {"curves.png", "adaptation.png"}


def test_a_term_needs_only_a_loss():
    """Its gradient and curvature come with it, even where it does not depend on all that the policy puts out."""
    policy = small_policy("normal", "soft")
    (batch, _), _ = prepare_updates([made_up_episodes(policy)] * 2, 0.95, 1.0, torch.float64, "cpu")
    theta = flatten(random_params(policy))
    term = Calm(policy, theta, batch, torch.zeros(len(batch.weights)), Options(**FAST), 5, Budget())
    _, gradient = term.loss_and_gradient(theta)
    assert_gradient_of_evaluate(policy, term, theta, gradient)
    moved = [name for name, value in unflatten(policy, gradient).items() if value.any()]
    assert moved == ["sigma"]
    assert term.kl_hessian_product(torch.ones_like(theta)).isfinite().all()


@pytest.mark.parametrize("gate", ["soft", "softsign"])
def test_what_is_added_learns_as_the_reference_does(gate, monkeypatch):
    """With an objective that nobody derived by hand and, in the second case, a gate likewise: gradients of the learner
    and, through an outer step of one's own, θ.
    """
    monkeypatch.setitem(GATES, "softsign", Elementwise(torch.nn.functional.softsign, label="rational"))
    monkeypatch.setitem(INNER_OBJECTIVES, "bounded", bounded_score)
    policy = small_policy(layer=gate)
    params, options = random_params(policy), Options(**FAST, inner_objective="bounded")
    before, after = made_up_episodes(policy), made_up_episodes(policy, seed=1)
    rule = GradientStep(GradientOptions(0.25))
    assert isinstance(rule, OuterStep)
    learner = MetaLearner(policy, options, rule, dtype=torch.float64)
    moved, metrics = learner.step(params, before, after)
    assert metrics["gradient/steps"] == 1

    theta = reference.flatten(policy, params).requires_grad_()
    surrogate, _ = reference.Objectives(policy, theta, (before, after), options, bounded_score)(theta)
    (gradient,) = torch.autograd.grad(surrogate, theta)
    expected = theta.detach() - 0.25 * gradient
    torch.testing.assert_close(reference.flatten(policy, moved), expected, rtol=0, atol=1e-10)
    assert gradient.abs().max() > 1e-3
    _, metrics = learner.step(moved, before, after)
    assert metrics["gradient/steps"] == 2
