"""Meta-test a saved policy: config.json + policy-N.pt -> returns after each adaptation step.

python test.py logs/<env>/<method>/<run>/config.json saves/<env>/<method>/<run>/policy-<n>.pt
"""

import _signal
import os
import sys

if __name__ == "__main__":
    # Until a run handles Ctrl-C, it ends the process without a word: imports take a while. No file of a user's can hide
    # a built-in module.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if not __package__:  # run as `python test.py`: the package stands one folder up
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from rl import start

    start.program()

# isort: split
import dataclasses
import functools
import json
import math
import shutil
import time
from pathlib import Path

from rl import envs, streams, video
from rl.config import HERE, Config, Parser, check_option, load_config
from rl.errors import UserError
from rl.evaluation import intervals
from rl.evaluation.evaluate import by_class, evaluate, successes
from rl.experiment.folders import Folders, group_of, load_policy, save_policy, write_config
from rl.experiment.interrupts import complain, exit_status
from rl.files import appearing, write_text
from rl.sampling import interventions

GIGABYTE = 1e9
# Meta-World's evaluation of meta-learning, as its documents describe it.
METAWORLD = {"adaptation episodes": 10, "evaluation episodes": 3, "horizon": 500}
# Options that replace the run's own: name on this command line -> name in `Config`.
OVERRIDING = {
    "num_tasks": "test_batch_size", "num_test_steps": "num_test_steps", "seed": "seed", "num_workers": "num_workers",
    "expname": "expname",
}  # fmt: skip


def main(command_line=None):
    """Parse, evaluate, and turn errors into one line and an exit status."""
    return exit_status("test.py", lambda _: test(parse(command_line)))


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


def test(options):
    """Evaluate as the parsed options say; returns the exit status."""
    config, description = load_config(options.config)
    task_seed = config.seed
    env_config_path = environment_file(options, config)
    config = overridden(config, options, env_config_path)
    available = METAWORLD["evaluation episodes"] if options.protocol == "metaworld" else config.fast_batch_size
    episodes = recorded_episodes(options.activations, available)
    if options.video:
        video.check(config, options.video)

    import numpy as np
    import torch

    from rl.evaluation import recordings
    from rl.experiment.build import Parts
    from rl.experiment.logger import Logger
    from rl.sampling.worker_pool import WorkerError

    torch.set_num_threads(1)
    # Task sets drawn once for a run stay those of the run: another seed's test goals may have been trained on.
    parts = Parts(config, task_seed)
    intervenes = (options.modulation, options.context) != ("normal", "normal")
    parts.check_machine("--num-tasks", training=False, interventions=int(intervenes))
    parts.check_tasks("--num-tasks", config.test_batch_size, options.split, streams.EVALUATE)
    check_sizes(options.config, description, parts.policy)
    params = load_policy(options.policy, parts.policy)
    intervention = intervention_of(options, parts)
    probe = options.probe and recordings.read_probe(options.probe, parts.policy)
    shape = recordings.shape(parts, episodes)
    if not intervention:
        print(f"activations.npy: {episodes} episodes a task, {4 * math.prod(shape) / GIGABYTE:.2f} GB", flush=True)

    folder = Folders.make(config, suffix="_test").logs
    try:
        started = time.perf_counter()
        with parts.sampler() as sampler:
            tasks, phases = evaluate(parts, sampler, params, 0, config.test_batch_size, options.split, intervention)
        seconds = time.perf_counter() - started
        measured = phases._replace(episodes=phases.intervened) if intervention else phases
        if options.protocol == "metaworld":
            shown = tuple(phase.first(METAWORLD["evaluation episodes"]) for phase in measured.episodes)
            measured = measured._replace(episodes=shown)
        write_config(folder, config, parts.policy, env_config_path)
        save_policy(folder / "policy.pt", params)
        write_text(folder / "tasks.json", json.dumps(tasks) + "\n")
        np.save(folder / "rewards.npy", np.stack([phase.rewards for phase in measured.episodes], axis=-1))
        if successes(measured.episodes[0]):
            solved = np.stack([phase.infos["success"] for phase in measured.episodes], axis=-1)
            np.save(folder / "success_metric.npy", solved)
        recordings.write_episodes(folder, measured.episodes, episodes)
        # Under an intervention, units would not do what the policy's own do.
        recordings.write(folder, parts, params, tasks, phases, 0 if intervention else episodes, probe)
        results = describe(options, parts, tasks, measured, phases)
        write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
        logger = Logger(folder)
        logger.evaluation(0, tasks, measured, seconds)
        logger.close()
    except BaseException as error:
        shutil.rmtree(folder)
        if not isinstance(error, WorkerError):
            raise
        print(f"test.py: {error}", file=sys.stderr)
        return 1

    if intervention:
        print(f"modulation {options.modulation}, context {options.context}; without them:")
        print(f"{table(phases, tasks)}\nwith them:")
    print(table(measured, tasks))
    print(f"evaluation:  {folder.resolve()}", flush=True)
    return draw(folder, parts, tasks, measured.episodes, options.video)


def draw(folder, parts, tasks, phases, films):
    """Draw an evaluation that is written already: one that cannot be drawn stays, and the others are.

    Args:
        folder: the evaluation.
        parts: `rl.experiment.build.Parts`.
        tasks: those of the evaluation.
        phases: its U + 1 `Episodes`.
        films: how many tasks to film.

    Returns:
        The exit status: 1 where a picture failed.
    """
    from rl.plots.adaptation import adaptation

    origin = parts.origin(0, streams.EVALUATE)
    pictures = {"adaptation.png": lambda place: adaptation([folder], place / "adaptation")}
    for number in video.chosen(tasks, films):
        film = functools.partial(video.record, parts=parts, tasks=tasks, phases=phases, origin=origin, number=number)
        pictures[f"video-task{number}.mp4"] = film
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


def describe(options, parts, tasks, measured, phases):
    """What results.json says: of the episodes `measured` and, under an intervention, of those without it."""
    config = parts.config
    normal = {"returns_normal": returns(phases)} if phases.intervened else {}
    return {
        "policy": str(options.policy),
        "split": options.split,
        "seed": config.seed,
        "protocol": options.protocol,
        "num_tasks": config.test_batch_size,
        "episodes_per_task": measured.episodes[0].mask.shape[2],
        "fast_lr": list(parts.evaluation().learning_rates),
        "modulation": options.modulation,
        "context": options.context,
        "intervals": "95%, over tasks: Student's t for returns, Wilson's for success rates",
        "returns": returns(measured),
        **normal,
        "returns_per_task": [episodes.returns.mean(axis=1).tolist() for episodes in measured.episodes],
        **success(measured, tasks),
    }


def returns(phases):
    """The mean return and its interval over tasks after each number of updates."""
    per_task = [episodes.returns.mean(axis=1) for episodes in phases.episodes]
    return [
        {"updates": updates, "mean": float(values.mean()), "half_width_95": known(intervals.half_width(values))}
        for updates, values in enumerate(per_task)
    ]


def success(phases, tasks):
    """The success rates after each number of updates, with intervals over tasks, where the environment tells."""
    told = [successes(episodes) for episodes in phases.episodes]
    if told[0] is None:
        return {}
    per_task = [{name: values.mean(axis=1) for name, values in found.items()} for found in told]
    return {
        "success": [
            {"updates": updates} | {name: rate(shares) for name, shares in found.items()}
            for updates, found in enumerate(per_task)
        ],
        "success_per_class": {
            name: [rate(found["any"][members]) for found in per_task] for name, members in by_class(tasks).items()
        },
        "success_per_task": [found["any"].tolist() for found in per_task],
    }


def rate(shares):
    """A rate and its interval over tasks, for JSON."""
    return {name: float(value) for name, value in intervals.rate(shares)._asdict().items()}


def known(number):
    """A number for JSON, which knows no NaN."""
    return None if math.isnan(number) else float(number)


def intervention_of(options, parts):
    """The `Intervention` that the options ask for, or None.

    Raises:
        UserError: the policy has no gates or no context, or the tasks leave nothing to swap.
    """
    intervention = interventions.Intervention(options.modulation, options.context, parts.config.seed)
    sizes = parts.policy.architecture
    if (options.modulation != "normal" or options.context == "gates") and not sizes.nm_gate:
        name = "--context gates" if options.modulation == "normal" else f"--modulation {options.modulation}"
        raise UserError(f"{name}: a plain policy has no gates; expected a run with --neuromodulation")
    if options.context != "normal" and not sizes.num_context_params:
        raise UserError(f"--context {options.context}: a MAML policy has no context")
    if "swapped" in intervention:
        tasks = parts.tasks(parts.config.test_batch_size, options.split, 0, streams.EVALUATE)
        size = parts.config.tasks_per_group
        if not all(interventions.differ(tasks[start : start + size]) for start in range(0, len(tasks), size)):
            raise UserError(
                f"swapped: tasks are swapped within groups of {size}, and in one of them none differ; "
                "expected other --num-tasks or --seed"
            )
    return intervention if intervention[:2] != ("normal", "normal") else None


def environment_file(options, config):
    """The environment's configuration file: the one named on the command line, else the run's own copy.

    A path that merely stands in config.json is never followed.
    """
    if options.env_config_path or not config.env_config_path:
        return options.env_config_path or ""
    copy = options.config.parent / Path(config.env_config_path).name
    if not copy.is_file():
        raise UserError(f"{copy}: the run's copy of the environment's file is missing; name one with --env-config-path")
    return str(copy)


def overridden(config, options, env_config_path):
    """The run's `Config` with what the command line changes.

    Raises:
        UserError: an impossible value, naming the option that was typed.
    """
    typed = {name: vars(options)[name] for name in OVERRIDING if vars(options)[name] is not None}
    for name, value in typed.items():
        check_option(Config.__dataclass_fields__[OVERRIDING[name]], value, "--" + name.replace("_", "-"))
    changes = {OVERRIDING[name]: value for name, value in typed.items()}
    if options.protocol == "metaworld":
        if config.env_name not in envs.META_WORLD:
            raise UserError(f"--protocol metaworld: expected a run on Meta-World, this one is on {config.env_name}")
        changes |= {"fast_batch_size": METAWORLD["adaptation episodes"], "horizon": METAWORLD["horizon"]}
        changes.setdefault("num_test_steps", 1)
    logdir = options.logdir or str(beside(options.config, config))
    return dataclasses.replace(config, **changes, logdir=logdir, env_config_path=env_config_path)


def beside(path, config):
    """The folder of all logs in which a run's config.json lies, wherever that is now; the default one where it lies
    alone.
    """
    group = path.resolve().parents[1:3]
    if [folder.name for folder in reversed(group)] == list(group_of(config).parts):
        return path.resolve().parents[3]
    return Path(HERE / "logs")


def recorded_episodes(text, available):
    """How many episodes a task to record: a number, or all."""
    if text == "all":
        return available
    if not text.isdecimal():
        raise UserError(f"--activations: expected a number of episodes or all, got {text!r}")
    return min(int(text), available)


def check_sizes(path, description, policy):
    """Hold the sizes that config.json names against the environment's."""
    for name, size in (
        ("input_size", policy.architecture.observation_size),
        ("output_size", policy.architecture.action_size),
    ):
        if description.get(name, size) != size:
            raise UserError(f"{path}: {name}: expected {size} for this environment, found {description[name]}")


def table(phases, tasks):
    """The returns, and where the environment tells them the success rates, as text."""
    told = success(phases, tasks)
    kinds = {"any": "success rate (any step)", "final": "success rate (final step)"} if told else {}
    header = ["updates      mean    95% interval over tasks", *(f"{words:<26}" for words in kinds.values())]
    lines = [f"return on {len(tasks)} tasks × {phases.episodes[0].mask.shape[2]} episodes", "   ".join(header).rstrip()]
    for updates, row in enumerate(returns(phases)):
        interval = "none" if row["half_width_95"] is None else f"±{row['half_width_95']:.3f}"
        cells = [f"{updates:7d}{row['mean']:10.3f}    {interval:<23}"]
        for name in kinds:
            share = told["success"][updates][name]
            cells.append(f"{share['mean']:6.1%} [{share['low']:.1%}, {share['high']:.1%}]".ljust(26))
        lines.append("   ".join(cells).rstrip())
    if told and told["success_per_class"]:
        lines.append("success rate (any step), by class, after each number of updates")
        for name, rates in told["success_per_class"].items():
            lines.append(f"  {name:<28}" + "".join(f"{share['mean']:8.1%}" for share in rates))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
