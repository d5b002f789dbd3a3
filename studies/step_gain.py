"""What an outer step gains on the tasks that it is made from, and on others: results/step_gain.json.

    python studies/step_gain.py ml1_reach/nm_soft/2 ml1_reach/maml/1 --checkpoints 50 100

At saved policies of runs, which lie in runs/, as `make results` leaves them with `save_freq` in their row. What a step
gains on its own tasks alone is particular to their episodes.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from checkpoints import measure_checkpoints, sampled
from evaluate import ROOT
from kept import rounded
from torch import Tensor

from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.errors import UserError
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes

TARGET = ROOT / "results/step_gain.json"
# What differs from the run's own options -> how many times its tasks a step is made from, and those options.
TRIALS: dict[str, tuple[int, dict[str, Any]]] = {
    "as in the run": (1, {}),
    "cg-damping 1": (1, {"cg_damping": 1.0}),
    "twice as many tasks": (2, {}),
}


def measure(setup: Setup, params: dict[str, Tensor], num_tasks: int, iteration: int) -> dict[str, Any]:
    """Sample so many training tasks, and try the outer steps of `TRIALS` on them.

    Args:
        iteration: names the random numbers; one that the run has not had.

    Returns:
        "returns": before and after the update. By trial: `gains`.

    Raises:
        UserError: too few tasks.
    """
    config = setup.config
    if num_tasks < (least := 4 * config.meta_batch_size):
        raise UserError(f"--num-tasks {num_tasks}: expected at least four times the run's --meta-batch-size, {least}")
    with setup.sampler() as sampler:
        episodes = sampled(setup, sampler, params, iteration, num_tasks)
    found: dict[str, Any] = {"returns": rounded([part.returns.mean() for part in episodes])}
    for name, (times, changed) in TRIALS.items():
        trial = Setup(dataclasses.replace(config, **changed))
        found[name] = rounded(gains(trial, params, episodes, times * config.meta_batch_size))
    return found


def gains(setup: Setup, params: dict[str, Tensor], episodes: Sequence[Episodes], size: int) -> list[list[float]]:
    """By how much outer steps, each from θ and a group of so many tasks of its own, improve the surrogate: of each
    step, [on its own tasks, on all others].
    """
    learner, theta = setup.learner(), flatten(params)
    parts = [
        [part.tasks(first, first + size) for part in episodes]
        for first in range(0, len(episodes[0].mask) - size + 1, size)
    ]
    objectives = [MetaObjective(learner.compute, setup.options, theta, part) for part in parts]
    found = []
    for number, part in enumerate(parts):
        learner.state = {}
        moved = flatten(learner.step(params, *part)[0])
        gained = [objective.loss - objective.evaluate(moved)[0] for objective in objectives]
        found.append([gained.pop(number), float(np.mean(gained))])
    return found


if __name__ == "__main__":
    sys.exit(measure_checkpoints("step_gain.py", TARGET, 60, measure))
