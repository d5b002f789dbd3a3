"""What a Meta-World run's episodes have to learn from, at its saved policies: results/learning_signal.json.

    python studies/learning_signal.py ml1_reach/cavia/1 ml1_push_10/cavia/1 --checkpoints 0 50 100 200

The runs lie in runs/, as `make results` leaves them with `save_freq` in their row. Episodes are fresh ones of training
tasks.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import table
import torch
from evaluate import ROOT, description, trained
from jaxtyping import Float
from kept import rounded, write_keys
from torch import Tensor

from rl import streams
from rl.algorithm import baseline
from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.algorithm.returns import discounted_returns
from rl.config import Parser
from rl.errors import UserError
from rl.evaluation import runs
from rl.files import read_json
from rl.run.checkpoint import load_policy
from rl.run.interrupts import exit_status
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes

TARGET = ROOT / "results/learning_signal.json"
HAND, OBJECT = slice(0, 3), slice(4, 7)  # in an observation of Meta-World, in m
NEAR, MOVED = 0.05, 0.02  # m


def measure(setup: Setup, params: dict[str, Tensor], num_tasks: int, iteration: int) -> dict[str, Any]:
    """What there is to learn from in fresh episodes of so many training tasks.

    Args:
        iteration: names the random numbers; one that the run has not had.

    Returns:
        By name, [before, after] the update: "returns"; "success", the share of episodes that succeed; "near", "moved",
        shares of episodes in which the hand comes near the object, and in which the object moves; "explained",
        `explained_variance`. "signal": `signal` of the outer gradient.

    Raises:
        UserError: too few tasks, or an objective that no task has alone.
    """
    config, learner = setup.config, setup.learner()
    if num_tasks < config.meta_batch_size or config.exploration_credit:
        raise UserError(
            f"expected --num-tasks of at least the run's --meta-batch-size ({config.meta_batch_size}) and a run "
            "without --exploration-credit, which compares tasks"
        )
    with setup.sampler() as sampler:
        tasks = setup.sample_tasks(num_tasks, "train", iteration, streams.TRAIN)
        stream = setup.stream(iteration, streams.TRAIN)
        episodes = sampler.sample(params, tasks, setup.train_plan(), stream, setup.tasks_per_block).episodes
    theta = flatten(params)
    gradients = torch.stack([
        MetaObjective(learner.compute, setup.options, theta, [part.tasks(task, task + 1) for part in episodes]).gradient
        for task in range(num_tasks)
    ])  # fmt: skip
    found: dict[str, Any] = {}
    for part in episodes:
        for name, value in (*moves(part).items(), ("explained", explained_variance(part, config.gamma))):
            found.setdefault(name, []).append(rounded(value))
    return {**found, "signal": rounded(signal(gradients.double().numpy(), config.meta_batch_size))}


def moves(episodes: Episodes) -> dict[str, float]:
    """What episodes of Meta-World do: returns, successes, and whether hand and object meet and move."""
    running = episodes.mask > 0
    hand, thing = (episodes.observations[..., part] for part in (HAND, OBJECT))
    distance = np.where(running, np.linalg.norm(hand - thing, axis=-1), np.inf)
    path = np.where(running, np.linalg.norm(thing - thing[:, :1], axis=-1), 0)
    success = (episodes.infos["success"] > 0).any(axis=1)
    return {
        "returns": float(episodes.returns.mean()),
        "success": float(success.mean()),
        "near": float((distance.min(axis=1) < NEAR).mean()),
        "moved": float((path.max(axis=1) > MOVED).mean()),
    }


def explained_variance(episodes: Episodes, gamma: float) -> float:
    """The share of the variance of the discounted returns that the baseline explains, the mean over tasks."""
    observations, rewards, mask = (
        torch.from_numpy(np.asarray(part)).double() for part in (episodes.observations, episodes.rewards, episodes.mask)
    )
    targets = discounted_returns(rewards, gamma) * mask
    design = baseline.features(observations, mask)
    coefficients, _ = baseline.fit(design, targets)
    left = targets - baseline.values(design, coefficients)
    shares = [
        1 - float(rest[kept].var() / wanted[kept].var())
        for rest, wanted, kept in zip(left, targets, mask > 0, strict=True)
        if wanted[kept].var() > 0
    ]
    return float(np.mean(shares)) if shares else float("nan")


def signal(gradients: Float[np.ndarray, "K P"], num_tasks: int) -> float:
    """The share of the squared length of a gradient of so many tasks that is the expected gradient's, not noise's.

    Unbiased estimates of both from K tasks' gradients (arXiv 1812.06162, appendix A.1); below 0 where the estimate of
    the expected gradient's squared length is.
    """
    noise = gradients.var(axis=0, ddof=1).sum()
    expected = np.square(gradients.mean(axis=0)).sum() - noise / len(gradients)
    return float(expected / (expected + noise / num_tasks))


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write what is new beside what is there, and turn errors into one line and an exit status."""
    parser = Parser(prog="learning_signal.py", description="What a run's episodes have to learn from.")
    parser.add_argument("names", nargs="+", metavar="EXPERIMENT/METHOD/SEED")
    parser.add_argument("--checkpoints", nargs="+", type=int, required=True, help="iterations whose policies are saved")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--num-tasks", type=int, default=40)

    def run(_: Any) -> None:
        options = parser.parse_args(command_line)
        torch.set_num_threads(1)
        rows = table.read()
        content = read_json(TARGET) if TARGET.exists() else {}
        for name in options.names:
            experiment, _, rest = name.partition("/")
            method = rest.partition("/")[0]
            row = rows.row(experiment, method)
            folder, last = trained(options.runs.resolve() / name, row.iterations)
            made = runs.read_run(folder)
            setup = Setup(dataclasses.replace(made.config, num_workers=0, learner_threads=1))
            found = {}
            for number in options.checkpoints:
                params = load_policy(last.with_name(f"policy-{number}.pt"), setup.policy)
                found[str(number)] = measure(setup, params, options.num_tasks, row.iterations + number)
                print(name, number, found[str(number)], flush=True)
            content[name] = {
                **description(folder, rows.options(experiment, method)),
                "num_tasks": options.num_tasks,
                "checkpoints": found,
            }
            write_keys(TARGET, content)

    return exit_status("learning_signal.py", run)


if __name__ == "__main__":
    sys.exit(main())
