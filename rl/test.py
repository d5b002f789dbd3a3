"""Meta-test a saved policy: config.json + policy-N.pt -> returns after each adaptation step.

python test.py logs/<env>/<method>/<run>/config.json saves/<env>/<method>/<run>/policy-<n>.pt
"""

import os
import sys

if __name__ == "__main__":
    if not __package__:  # run as `python test.py`: the package stands one folder up
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from rl import start

    sys.exit(start.run("test"))

import argparse
import contextlib
import functools
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl import streams, video
from rl.config import SPLITS, Parser
from rl.errors import in_one_line
from rl.evaluation import recordings, report
from rl.evaluation.evaluate import Evaluated, Summary
from rl.evaluation.task_choice import distinct
from rl.files import appearing, save_array, write_text
from rl.ranks import Ranks
from rl.run import agreement, config_file, metrics
from rl.run.checkpoint import save_policy
from rl.run.folders import Folders
from rl.run.interrupts import exit_status
from rl.run.test_request import METAWORLD, Request, checked
from rl.sampling import interventions
from rl.sampling.episodes import Episodes
from rl.sampling.jobs import WorkerSpec
from rl.sampling.rollout import Rollouts, StreamName, Tasks
from rl.start import complain


def main(command_line: list[str] | None = None) -> int:
    """Parse, evaluate, and turn errors into one line and an exit status."""
    return exit_status("test.py", lambda _: test(parse(command_line)), alone="WORLD_SIZE" not in os.environ)


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """The command line of test.py; options left out are those of the run."""
    parser = Parser(prog="test.py", description="Evaluate a policy's adaptation.", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="config.json of the run")
    parser.add_argument("policy", type=Path, help="policy-<n>.pt, a state dict of this code or the published one")
    parser.add_argument("--env-config-path", default=None, help="environment's file; default: the run's copy of it")
    parser.add_argument("--num-tasks", type=int, default=None, help="tasks; default: those of the run's evaluations")
    parser.add_argument("--num-test-steps", type=int, default=None, help="inner updates; default: the run's")
    parser.add_argument("--test-batch-size", type=int, default=None, help="episodes a task; default: the run's")
    parser.add_argument(
        "--halve-test-lr", action=argparse.BooleanOptionalAction, default=None,
        help="halve the inner learning rate after the first update; default: as the run does",
    )  # fmt: skip
    parser.add_argument("--split", choices=SPLITS, default=None, help="which tasks (default test)")
    parser.add_argument("--tasks", type=Path, default=None, metavar="FILE", help="tasks written as in tasks.json")
    parser.add_argument("--seed", type=int, default=None, help="default: the run's")
    parser.add_argument("--num-workers", type=int, default=None, help="default: the run's")
    parser.add_argument("--activations", default="4", metavar="N|all", help="episodes a task to record (default 4)")
    parser.add_argument("--probe", type=Path, default=None, help="evaluation whose probe observations to use as well")
    parser.add_argument(
        "--modulation", choices=interventions.MODULATION, default="normal",
        help="act with gates all 1, frozen as before adaptation, shuffled over units, swapped with another task",
    )  # fmt: skip
    parser.add_argument(
        "--context", choices=interventions.CONTEXT, default="normal",
        help="act with φ = 0, with another task's φ, or with φ at the gates alone",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", choices=("paper", "metaworld"), default="paper",
        help="metaworld: Meta-World's own, 10 episodes to adapt on, 3 to evaluate, 500 steps each",
    )  # fmt: skip
    parser.add_argument(
        "--video", type=int, default=0, metavar="N", help="film an episode of each of N tasks: mp4 and gif (default 0)"
    )
    parser.add_argument("--logdir", default=None, help="where the evaluation's folder goes (default: beside the run's)")
    parser.add_argument("--expname", default=None, help="name appended to the evaluation's folder")
    return parser.parse_args(command_line)


def test(options: argparse.Namespace) -> int:
    """Evaluate as the parsed options say; returns the exit status."""
    torch.set_num_threads(1)
    ranks = Ranks()
    ranks.join()
    request = checked(options, ranks)
    setup, plan = request.setup, request.plan
    if options.video:
        video.check(setup.config, options.video)
    ranks.agree(agreement.facts(setup.config, files={"the policy": options.policy, "--tasks": options.tasks}))
    print(f"{len(request.tasks)} tasks, {plan.num_episodes} episodes of each before and after every update", flush=True)
    if not plan.intervention:
        announce_activations(request)
    folder = Folders.make(setup.config, suffix="_test").logs if ranks.leads else None
    try:
        stream = setup.stream(0, streams.EVALUATE)
        with contextlib.closing(setup), setup.sampler() as shares:
            started = time.perf_counter()
            own = shares.sample(request.params, request.tasks, plan, stream, setup.config.tasks_per_group)
            rollouts = shares.rollouts(own)
            seconds = time.perf_counter() - started
        ranks.leave()
        if folder is None or rollouts is None:  # not rank 0
            return 0
        counted = counting(rollouts, options.protocol)
        evaluated, measured = (
            Evaluated(request.tasks, tuple(map(Summary.of, episodes)), seconds)
            for episodes in (rollouts.episodes, counted)
        )
        write(folder, request, rollouts, counted)
        write_results(folder, options, request, evaluated, measured)
    except BaseException:
        if folder:
            shutil.rmtree(folder)
        raise
    if plan.intervention:
        print(f"modulation {options.modulation}, context {options.context}; without them:")
        print(f"{report.table(evaluated)}\nwith them:")
    print(report.table(measured))
    print(f"evaluation:  {folder.resolve()}", flush=True)
    return draw(folder, setup.spec, request.tasks, counted, stream, options.video)


def counting(rollouts: Rollouts, protocol: str) -> tuple[Episodes, ...]:
    """The episodes that count after each number of updates: those under an intervention where there was one;
    Meta-World's protocol takes the first 3 of each task.
    """
    counted = rollouts.intervened or rollouts.episodes
    if protocol == "metaworld":
        counted = tuple(episodes.first(METAWORLD["evaluation episodes"]) for episodes in counted)
    return counted


def write(folder: Path, request: Request, rollouts: Rollouts, counted: Sequence[Episodes]) -> None:
    """Write what was evaluated, and what was recorded of it.

    Args:
        folder: the evaluation.
        rollouts: of all episodes.
        counted: the episodes that count, after each number of updates.
    """
    setup, plan = request.setup, request.plan
    config_file.write(folder, setup.config, setup.policy, device="cpu", run_seed=request.run_seed)
    save_policy(folder / "policy.pt", request.params)
    write_text(folder / "tasks.json", json.dumps(request.tasks) + "\n")
    save_array(folder / "rewards.npy", np.stack([episodes.rewards for episodes in counted], axis=-1))
    if "success" in counted[0].infos:
        success = np.stack([episodes.infos["success"] for episodes in counted], axis=-1)
        save_array(folder / "success_metric.npy", success)
    recordings.write_episodes(folder, counted, request.num_recorded)
    probe = request.probe
    if probe is None:
        probe = recordings.draw_probe(setup.config.seed, rollouts, distinct(request.tasks))
    # Under an intervention, units would not do what the policy's own do.
    num_recorded = 0 if plan.intervention else request.num_recorded
    sampled = request.params, request.tasks, rollouts, plan
    recordings.write(folder, setup.policy, *sampled, setup.config.tasks_per_group, num_recorded, probe)


def write_results(
    folder: Path, options: argparse.Namespace, request: Request, evaluated: Evaluated, measured: Evaluated
) -> None:
    """Write the results, as JSON and for TensorBoard.

    Args:
        evaluated: of all episodes.
        measured: of those that count.
    """
    conditions = {
        "policy": str(options.policy),
        "split": str(options.tasks) if options.tasks else options.split or "test",
        "seed": request.setup.config.seed,
        "protocol": options.protocol,
        "num_tasks": len(request.tasks),
        "episodes_per_task": measured.summaries[0].returns.shape[1],
        "fast_lr": list(request.plan.learning_rates),
        "modulation": options.modulation,
        "context": options.context,
    }
    results = report.results(conditions, measured, evaluated if request.plan.intervention else None)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    sink = metrics.TensorBoard(folder)
    sink.describe(request.setup.config)
    sink.write(0, metrics.evaluation(measured))
    sink.close()


def announce_activations(request: Request) -> None:
    """Say how large the file of activations will be."""
    setup, num_updates = request.setup, len(request.plan.learning_rates)
    shape = recordings.shape(setup.policy, len(request.tasks), setup.env.horizon, request.num_recorded, num_updates)
    size = 4 * math.prod(shape) / 1e9
    print(f"activations.npy: {request.num_recorded} episodes a task, {size:.2f} GB", flush=True)


def draw(
    folder: Path,
    spec: WorkerSpec,
    tasks: Tasks,
    episodes: Sequence[Episodes],
    stream: StreamName,
    num_films: int,
) -> int:
    """Draw an evaluation that is written already: one that cannot be drawn stays, and the others are.

    Args:
        folder: the evaluation.
        spec: of its workers.
        episodes: after each number of updates.
        stream: of its first task, before any update.
        num_films: how many tasks to film.

    Returns:
        The exit status: 1 where a picture failed.
    """
    # Imported here alone: bad input is answered without waiting for the libraries for pictures.
    from rl.plots.adaptation import adaptation

    pictures: dict[str, Callable[[Path], Any]] = {
        "adaptation.png": lambda place: adaptation([folder], place / "adaptation")
    }
    for number in video.chosen(tasks, num_films):
        pictures[f"video-task{number}.mp4"] = functools.partial(
            video.record, spec=spec, tasks=tasks, episodes=episodes, stream=stream, number=number
        )
    status = 0
    for name, make in pictures.items():
        path = folder.resolve() / name
        try:
            with appearing(folder) as place:
                make(place)
            with contextlib.closing(metrics.TensorBoard(folder)) as board:
                board.show(path.stem, path.with_suffix(".gif") if path.suffix == ".mp4" else path)
        except Exception as error:  # whatever the libraries for pictures raise, the evaluation is there
            reason = in_one_line(error)
            complain(f"test.py: {path}: cannot be drawn: {reason}; the evaluation itself is complete")
            status = 1
        else:
            label = "film:" if path.suffix == ".mp4" else "picture:"
            print(f"{label:<13}{path}")
    return status
