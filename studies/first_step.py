"""What the first outer step gains on the episodes that it is made from, and on fresh ones: results/first_step.json.

python studies/first_step.py

Half-Cheetah, direction, with half of the hidden units and a quarter of the tasks of its experiment: seconds a step.
"""

import dataclasses
from typing import Any

import table
import torch
from checkpoints import sampled
from evaluate import ROOT
from kept import rounded, write_keys

from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.config import Config, parse_options
from rl.run.provenance import git_commit
from rl.run.setup import Setup

EXPERIMENT = "half_cheetah_dir"
# Method -> how many seeds: 25 where the question is whether a step gains something on fresh episodes.
METHODS = {
    "cavia": 5, "cavia_matched": 25, "nm_hard": 5, "nm_soft": 25, "nm_soft_1": 5, "nm_soft_2": 25, "nm_soft_3": 5,
    "nm_ste": 5, "nm_ste_1": 5,
}  # fmt: skip
SIZES = {"hidden_size": 100, "nm_size": 16, "meta_batch_size": 10}
TARGET = ROOT / "results/first_step.json"


def measure(config: Config) -> tuple[dict[str, Any], int]:
    """The first outer step: whether it is accepted, its divergence, and by how much it improves the surrogate on its
    own episodes and on as many of the next iteration's, sampled with θ as it was before; and the size of θ.
    """
    setup = Setup(config)
    params, learner = setup.initial_params(), setup.learner()

    with setup.sampler() as sampler:
        own, fresh = (sampled(setup, sampler, params, iteration) for iteration in (0, 1))
    changed, metrics = learner.step(params, *own)
    objective = MetaObjective(learner.compute, setup.options, flatten(params), fresh)
    return {
        "accepted": metrics["trpo/step_size"] > 0,
        "kl": rounded(metrics["trpo/kl"]),
        "own": rounded(metrics["trpo/improvement"]),
        "fresh": rounded(objective.loss - objective.evaluate(flatten(changed))[0]),
    }, setup.policy.num_params


def main() -> None:
    """Measure all methods and seeds, and write them."""
    torch.set_num_threads(1)
    rows = table.read()
    found = {}
    for method, count in METHODS.items():
        config = dataclasses.replace(parse_options(rows.options(EXPERIMENT, method)), num_workers=1, **SIZES)
        seeds = {}
        for seed in range(1, count + 1):
            seeds[seed], num_params = measure(dataclasses.replace(config, seed=seed))
            print(method, seed, seeds[seed], flush=True)
        found[method] = {"parameters": num_params, "seeds": seeds}
    write_keys(TARGET, {"commit": git_commit(), "methods": found})


if __name__ == "__main__":
    main()
