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

import dataclasses
import functools
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from rl import streams, video
from rl.config import Parser, default_workers
from rl.evaluation import recordings, report
from rl.evaluation.evaluate import Evaluated, Summary
from rl.evaluation.task_choice import distinct
from rl.files import appearing, save_array, write_text
from rl.ranks import Ranks
from rl.run import agreement
from rl.run.build import Setup
from rl.run.folders import Folders, save_policy, write_config
from rl.run.interrupts import complain, exit_status
from rl.run.logger import Logger
from rl.run.request import METAWORLD, checked
from rl.run.team import RunError, Team
from rl.sampling import interventions
from rl.sampling.worker_pool import WorkerError


def main(command_line=None):
    """Parse, evaluate, and turn errors into one line and an exit status."""
    ranks = Ranks()

    def run(_):
        ranks.join()
        return test(parse(command_line), ranks)

    return exit_status("test.py", run, ranks)


def parse(command_line=None):
    """The command line of test.py; options left out are those of the run."""
    parser = Parser(prog="test.py", description="Evaluate a policy's adaptation.", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="config.json of the run")
    parser.add_argument("policy", type=Path, help="policy-<n>.pt, a state dict of this code or the published one")
    parser.add_argument("--env-config-path", default=None, help="environment's file; default: the run's copy of it")
    parser.add_argument("--num-tasks", type=int, default=None, help="tasks; default: the run's --test-batch-size")
    parser.add_argument("--num-test-steps", type=int, default=None, help="inner updates; default: the run's")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="which tasks (default test)")
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


def test(options, ranks):
    """Evaluate as the parsed options say, on all ranks; returns the exit status."""
    torch.set_num_threads(1)
    if ranks.rank > 0:
        serve(options, ranks)
        return 0
    request = checked(options, ranks)
    experiment = request.experiment
    if options.video:
        video.check(experiment.config, options.video)
    agreement.tell(experiment)
    if not request.sampling.intervention:
        announce_activations(request)
    folder = Folders.make(experiment.config, suffix="_test").logs
    try:
        origin = experiment.origin(0, streams.EVALUATE)
        with Team(experiment) as team:
            started = time.perf_counter()
            team.sample(request.params, request.tasks, request.sampling, origin, experiment.config.tasks_per_group)
            seconds = time.perf_counter() - started
            phases = team.phases()
        ranks.leave()
        counted = counting(phases, options.protocol)
        evaluated, measured = (
            Evaluated(request.tasks, tuple(map(Summary.of, episodes)), seconds)
            for episodes in (phases.episodes, counted)
        )
        write(folder, request, phases, counted)
        write_results(folder, options, request, evaluated, measured)
    except BaseException as error:
        shutil.rmtree(folder)
        if isinstance(error, WorkerError):
            raise RunError(str(error)) from None
        raise
    if request.sampling.intervention:
        print(f"modulation {options.modulation}, context {options.context}; without them:")
        print(f"{report.table(evaluated)}\nwith them:")
    print(report.table(measured))
    print(f"evaluation:  {folder.resolve()}", flush=True)
    return draw(folder, experiment.setting, request.tasks, counted, origin, options.video)


def serve(options, ranks):
    """On another rank than 0, which alone reads and writes: sample what it asks for."""
    config, env_options = agreement.listen(ranks)
    config = dataclasses.replace(config, num_workers=options.num_workers or default_workers())
    with Team(Setup(config, env_options=env_options, ranks=ranks)) as team:
        team.serve()
    ranks.leave()


def counting(phases, protocol):
    """The `Episodes` of each phase that count: those under an intervention where there was one; Meta-World's protocol
    takes the first 3 of each task.
    """
    episodes = phases.intervened or phases.episodes
    if protocol == "metaworld":
        episodes = tuple(phase.first(METAWORLD["evaluation episodes"]) for phase in episodes)
    return episodes


def write(folder, request, phases, counted):
    """Write what was evaluated, and what was recorded of it.

    Args:
        folder: the evaluation.
        request: `Request`.
        phases: `Rollouts` of all episodes.
        counted: the `Episodes` of each phase that count.
    """
    config, policy = request.experiment.config, request.experiment.policy
    write_config(folder, config, policy, config.env_config_path, device="cpu")
    save_policy(folder / "policy.pt", request.params)
    write_text(folder / "tasks.json", json.dumps(request.tasks) + "\n")
    save_array(folder / "rewards.npy", np.stack([phase.rewards for phase in counted], axis=-1))
    if "success" in counted[0].infos:
        save_array(folder / "success_metric.npy", np.stack([phase.infos["success"] for phase in counted], axis=-1))
    recordings.write_episodes(folder, counted, request.num_recorded)
    probe = request.probe
    if probe is None:
        probe = recordings.draw_probe(config.seed, phases, distinct(request.tasks))
    # Under an intervention, units would not do what the policy's own do.
    num_recorded = 0 if request.sampling.intervention else request.num_recorded
    sampled = request.params, request.tasks, phases, request.sampling
    recordings.write(folder, policy, *sampled, config.tasks_per_group, num_recorded, probe)


def write_results(folder, options, request, evaluated, measured):
    """Write the results, as JSON and for TensorBoard.

    Args:
        folder, request: as for `write`.
        options: as parsed.
        evaluated: `Evaluated` of all episodes.
        measured: `Evaluated` of those that count.
    """
    conditions = {
        "policy": str(options.policy),
        "split": options.split,
        "seed": request.experiment.config.seed,
        "protocol": options.protocol,
        "num_tasks": len(request.tasks),
        "episodes_per_task": measured.summaries[0].returns.shape[1],
        "fast_lr": list(request.sampling.learning_rates),
        "modulation": options.modulation,
        "context": options.context,
    }
    results = report.results(conditions, measured, evaluated if request.sampling.intervention else None)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    logger = Logger(folder)
    logger.evaluation(0, measured)
    logger.close()


def announce_activations(request):
    """Say how large the file of activations will be."""
    env, num_updates = request.experiment.env, len(request.sampling.learning_rates)
    shape = recordings.shape(
        request.experiment.policy, len(request.tasks), env.horizon, request.num_recorded, num_updates
    )
    size = 4 * math.prod(shape) / 1e9
    print(f"activations.npy: {request.num_recorded} episodes a task, {size:.2f} GB", flush=True)


def draw(folder, setting, tasks, episodes, origin, num_films):
    """Draw an evaluation that is written already: one that cannot be drawn stays, and the others are.

    Args:
        folder: the evaluation.
        setting: the `WorkerSpec` of its workers.
        tasks: list of K tasks.
        episodes: `Episodes` of each phase.
        origin: the `StreamName` of its first phase and task.
        num_films: how many tasks to film.

    Returns:
        The exit status: 1 where a picture failed.
    """
    # Imported here alone: bad input is answered without waiting for the libraries for pictures.
    from rl.plots.adaptation import adaptation

    pictures = {"adaptation.png": lambda place: adaptation([folder], place / "adaptation")}
    for number in video.chosen(tasks, num_films):
        pictures[f"video-task{number}.mp4"] = functools.partial(
            video.record, setting=setting, tasks=tasks, phases=episodes, origin=origin, number=number
        )
    status = 0
    for name, make in pictures.items():
        path = folder.resolve() / name
        try:
            with appearing(folder) as place:
                make(place)
        except Exception as error:  # whatever the libraries for pictures raise, the evaluation is there
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            complain(f"test.py: {path}: cannot be drawn: {reason}; the evaluation itself is complete")
            status = 1
        else:
            print(f"picture:     {path}")
    return status
