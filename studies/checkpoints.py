"""What studies of saved policies share: fresh training episodes, and a program that measures runs' checkpoints."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import table
import torch
from evaluate import ROOT, description, trained
from kept import write_keys
from torch import Tensor

from rl import streams
from rl.config import Parser
from rl.evaluation import runs
from rl.files import read_json
from rl.run.checkpoint import load_policy
from rl.run.interrupts import exit_status
from rl.run.setup import Setup
from rl.run.shares import Shares
from rl.sampling.episodes import Episodes


def sampled(
    setup: Setup, sampler: Shares, params: dict[str, Tensor], iteration: int, num_tasks: int | None = None
) -> list[Episodes]:
    """An iteration's training episodes, before and after each update.

    Args:
        iteration: names the random numbers.
        num_tasks: default: --meta-batch-size.
    """
    tasks = setup.sample_tasks(num_tasks or setup.config.meta_batch_size, "train", iteration, streams.TRAIN)
    stream = setup.stream(iteration, streams.TRAIN)
    rollouts = sampler.sample(params, tasks, setup.train_plan(), stream, setup.tasks_per_block)
    assert rollouts is not None
    return rollouts.episodes


def measure_checkpoints(
    program: str,
    target: Path,
    num_tasks: int,
    measure: Callable[[Setup, dict[str, Tensor], int, int], dict[str, Any]],
) -> int:
    """A study's program: measure runs' saved policies, write what is new beside what is there, and turn errors into one
    line and an exit status.

    Args:
        num_tasks: the default of --num-tasks.
        measure: of (the run's setup, a policy, --num-tasks, an iteration that the run has not had).
    """
    parser = Parser(prog=program, description="Measure runs' saved policies.")
    parser.add_argument("names", nargs="+", metavar="EXPERIMENT/METHOD/SEED")
    parser.add_argument("--checkpoints", nargs="+", type=int, required=True, help="iterations whose policies are saved")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--num-tasks", type=int, default=num_tasks)

    def run(_: Any) -> None:
        options = parser.parse_args()
        torch.set_num_threads(1)
        rows = table.read()
        content = read_json(target) if target.exists() else {}
        for name in options.names:
            experiment, _, rest = name.partition("/")
            method = rest.partition("/")[0]
            row = rows.row(experiment, method)
            folder, last = trained(options.runs.resolve() / name, row.iterations)
            setup = Setup(dataclasses.replace(runs.read_run(folder).config, num_workers=0, learner_threads=1))
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
            write_keys(target, content)

    return exit_status(program, run)
