"""Why line searches refuse steps: results/line_search.json.

python studies/line_search.py

CT-graph, depth 3, the first 100 iterations of four arms of docs/mechanism.md, three seeds each.
"""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import table
import torch
from checkpoints import sampled
from evaluate import ROOT
from kept import rounded, write_keys
from torch import Tensor

from rl.algorithm.meta_objective import MetaObjective
from rl.algorithm.outer_step import OuterObjective
from rl.algorithm.trpo import TRPO, Vector
from rl.config import Config, parse_options
from rl.run.provenance import git_commit
from rl.run.setup import Setup

ARMS = {"mechanism_d3": ("cavia_matched", "nm_hard"), "mechanism_d3_five": ("cavia_matched_credit", "nm_hard_credit")}
SEEDS = (1, 2, 3)
ITERATIONS = 100
SHORT = 0.1  # the fraction of a step at which the divergences are looked at, whatever the line search tried
TARGET = ROOT / "results/line_search.json"


class Watched(TRPO):
    """TRPO that keeps why its line searches refused a trial, and the divergences a short way along each step.

    Attributes:
        refused: how many trials for each reason.
        divergences: for each step that has a direction, those of the objective's terms.
    """

    def __init__(self, options: Any):
        super().__init__(options)
        self.refused: Counter[str] = Counter()
        self.divergences: list[list[float]] = []

    def step(
        self, theta: Vector, state: dict[str, Tensor], objective: OuterObjective
    ) -> tuple[Vector, dict[str, Tensor], dict[str, float]]:
        """As TRPO's."""
        assert isinstance(objective, MetaObjective)
        trials = []
        evaluate = objective.evaluate

        def watched(moved: Vector) -> tuple[float, float]:
            trials.append((moved, *evaluate(moved)))
            return trials[-1][1:]

        objective.evaluate = watched  # type: ignore[method-assign]
        stepped = super().step(theta, state, objective)
        for _, loss, divergence in trials:
            reasons = ["surrogate"] * (not loss < objective.loss) + ["KL"] * (not divergence < self.options.max_kl)
            self.refused.update([" and ".join(reasons)] if reasons else [])
        if trials:
            short = theta + SHORT * (trials[0][0] - theta)  # the first trial is the full step
            terms = zip(*(chunk.terms for chunk in objective.chunks), strict=True)
            self.divergences.append(
                [float(sum(term.evaluate(short)[1] for term in kind)) / objective.num_tasks for kind in terms]
            )
        return stepped


def measure(config: Config, iterations: int = ITERATIONS) -> dict[str, Any]:
    """Train, and tell how many trials the line searches refused, by reason; the median KL at `SHORT` of a step, after
    the update and, where the objective credits exploration, before it; and what it would be were the policy smooth.
    """
    setup = Setup(config)
    params, learner = setup.initial_params(), setup.learner()
    assert isinstance(learner.outer_step, TRPO)
    learner.outer_step = watched = Watched(learner.outer_step.options)
    with setup.sampler() as sampler:
        for iteration in range(iterations):
            params, _ = learner.step(params, *sampled(setup, sampler, params, iteration))
    return {
        "refused": dict(sorted(watched.refused.items())),
        "short": rounded(np.median(watched.divergences, axis=0)),
        "smooth": rounded(config.max_kl * SHORT**2),
    }


def main() -> None:
    """Measure all arms and seeds, and write them."""
    torch.set_num_threads(1)
    rows = table.read()
    found: dict[str, Any] = {"commit": git_commit()}
    for experiment, methods in ARMS.items():
        for method in methods:
            config = parse_options(rows.options(experiment, method))
            for seed in SEEDS:
                one = dataclasses.replace(config, seed=seed, num_workers=1, learner_threads=1)
                found[f"{method}/{seed}"] = measure(one)
                print(method, seed, found[f"{method}/{seed}"], flush=True)
    write_keys(TARGET, found)


if __name__ == "__main__":
    main()
