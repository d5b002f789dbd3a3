"""What test.py's options ask for, checked before anything is computed or written."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rl import envs, streams
from rl.config import Config, check_option, load_config, whole_number
from rl.errors import UserError
from rl.evaluation import recordings
from rl.evaluation.runs import read_tasks
from rl.policies import Architecture, MLPPolicy
from rl.ranks import Ranks
from rl.run import resources
from rl.run.checkpoint import load_policy
from rl.run.config_file import copy_of_env_file
from rl.run.folders import group_of
from rl.run.setup import Setup
from rl.sampling.interventions import Intervention, differ
from rl.sampling.rollout import AdaptationPlan, Tasks

# Meta-World's evaluation of meta-learning, as its documents describe it.
METAWORLD = {"adaptation episodes": 10, "evaluation episodes": 3, "horizon": 500}
# Options that replace the run's own: name on this command line -> name in `Config`.
OVERRIDING = {
    "num_tasks": "num_test_tasks", "num_test_steps": "num_test_steps", "test_batch_size": "test_batch_size",
    "halve_test_lr": "halve_test_lr", "seed": "seed", "num_workers": "num_workers", "expname": "expname",
}  # fmt: skip


class Request(NamedTuple):
    """What an evaluation is made of, checked.

    Attributes:
        setup: of the run's options and those that replace them.
        run_seed: the training run's own seed.
        params: θ.
        num_recorded: episodes to record of each task.
        probe: observations of another evaluation; None: the evaluation's own are drawn.
    """

    setup: Setup
    run_seed: int
    params: dict[str, Tensor]
    tasks: Tasks
    plan: AdaptationPlan
    num_recorded: int
    probe: Float[np.ndarray, "N O"] | None


def checked(options: argparse.Namespace, ranks: Ranks) -> Request:
    """The `Request` that test.py's options make.

    Raises:
        UserError: whatever is wrong with it, before anything is written.
    """
    run, description = load_config(options.config)
    if description.get("older_test_batch_size"):
        print("config.json is of a version whose --test-batch-size was the number of tasks: it keeps that", flush=True)
    tasks = written_tasks(options)
    if tasks is not None:
        options.num_tasks = len(tasks)
    config = overridden(run, options, environment_file(options, run))
    available = METAWORLD["evaluation episodes"] if options.protocol == "metaworld" else config.test_batch_size
    num_recorded = recorded_episodes(options.activations, available)
    # Task sets drawn once for a run stay those of the run: another seed's test goals may have been trained on.
    setup = Setup(config, description["run_seed"], ranks=ranks)
    policy, intervention = setup.policy, asked_intervention(options, config.seed)
    resources.check(config, setup.env, policy, "--num-tasks", training=False, interventions=bool(intervention))
    if tasks is None:
        tasks = setup.first_tasks("--num-tasks", config.test_tasks, options.split or "test", streams.EVALUATE)
    else:
        for task in tasks:
            setup.check_task(task)
    check_sizes(options.config, description, policy)
    params = load_policy(options.policy, policy)
    if intervention:
        check_intervention(intervention, policy.architecture)
        if intervention.swaps_tasks:
            setup.config = swappable(config, tasks)
            resources.check(setup.config, setup.env, policy, "--num-tasks", training=False, interventions=1)
    if options.probe and (intervention or not num_recorded):
        raise UserError("--probe: no activations are recorded with --activations 0 or under an intervention")
    probe = options.probe and recordings.read_probe(options.probe, policy)
    plan = setup.test_plan()._replace(intervention=intervention)
    return Request(setup, description["run_seed"], params, tasks, plan, num_recorded, probe)


def written_tasks(options: argparse.Namespace) -> Tasks | None:
    """The tasks of `--tasks FILE.json`, written as in an evaluation's tasks.json; None where no file is named.

    Raises:
        UserError: it is no list of objects, or other options say which tasks, too.
    """
    if options.tasks is None:
        return None
    if options.num_tasks is not None or options.split is not None:
        raise UserError("--tasks: names the tasks; expected a command without --num-tasks and --split")
    return read_tasks(options.tasks)


def asked_intervention(options: argparse.Namespace, seed: int) -> Intervention | None:
    """The `Intervention` that the options ask for, or None."""
    intervention = Intervention(options.modulation, options.context, seed)
    return None if intervention == Intervention(seed=seed) else intervention


def check_intervention(intervention: Intervention, architecture: Architecture) -> None:
    """Find out whether an intervention can be made.

    Raises:
        UserError: the policy has no gates or no context.
    """
    modulation, context, _ = intervention
    if (modulation != "normal" or context == "gates") and not architecture.nm_gate:
        name = "--context gates" if modulation == "normal" else f"--modulation {modulation}"
        raise UserError(f"{name}: a plain policy has no gates; expected a run with --neuromodulation")
    if context != "normal" and not architecture.num_context_params:
        raise UserError(f"--context {context}: a MAML policy has no context")


def swappable(config: Config, tasks: Tasks) -> Config:
    """The `Config` with the smallest groups, of at least its own size, in each of which two tasks differ.

    Raises:
        UserError: all tasks are equal.
    """
    if not differ(tasks):
        raise UserError("swapped: no two tasks differ; expected other --num-tasks or --seed")
    size = config.tasks_per_group
    while not all(differ(tasks[start : start + size]) for start in range(0, len(tasks), size)):
        size += 1
    if size == config.tasks_per_group:
        return config
    print(f"swapped:     tasks in groups of {size}; in one of {config.tasks_per_group} none differ", flush=True)
    # Blocks, which hold whole groups, are the outer step's, and there is none.
    return dataclasses.replace(config, tasks_per_group=size, tasks_per_block=0)


def environment_file(options: argparse.Namespace, config: Config) -> str:
    """The environment's configuration file: the one named on the command line, else the run's own copy.

    A path that merely stands in config.json is never followed.
    """
    if options.env_config_path or not config.env_config_path:
        return options.env_config_path or ""
    return copy_of_env_file(options.config.parent, config, "; name one with --env-config-path")


def overridden(config: Config, options: argparse.Namespace, env_config_path: str) -> Config:
    """The run's `Config` with what the command line changes.

    Raises:
        UserError: an impossible value, naming the option that was typed.
    """
    typed = {name: vars(options)[name] for name in OVERRIDING if vars(options)[name] is not None}
    for name, value in typed.items():
        check_option(Config.__dataclass_fields__[OVERRIDING[name]], value, "--" + name.replace("_", "-"))
    if options.num_tasks is not None and options.num_tasks < 1:
        raise UserError(f"--num-tasks: expected at least 1, got {options.num_tasks}")
    changes = {OVERRIDING[name]: value for name, value in typed.items()}
    if options.protocol == "metaworld":
        if options.test_batch_size is not None:
            raise UserError("--protocol metaworld: has its own numbers of episodes; expected no --test-batch-size")
        if "metaworld" not in envs.protocols(config.env_name):
            raise UserError(f"--protocol metaworld: expected a run on Meta-World, this one is on {config.env_name}")
        changes |= {"test_batch_size": METAWORLD["adaptation episodes"], "horizon": METAWORLD["horizon"]}
        changes.setdefault("num_test_steps", 1)
    logdir = options.logdir or str(beside(options.config, config))
    return dataclasses.replace(config, **changes, logdir=logdir, env_config_path=env_config_path)


def beside(path: Path, config: Config) -> Path:
    """The folder of all logs in which a run's config.json lies, wherever that is now; the default one where it lies
    alone.
    """
    group = path.resolve().parents[1:3]
    if [folder.name for folder in reversed(group)] == list(group_of(config).parts):
        return path.resolve().parents[3]
    return Path(Config.logdir)


def recorded_episodes(text: str, available: int) -> int:
    """How many episodes a task to record: a number, or all."""
    if text == "all":
        return available
    try:
        return min(whole_number(text), available)
    except UserError as error:
        raise UserError(f"--activations: {error}; or all") from None


def check_sizes(path: Path, description: dict[str, Any], policy: MLPPolicy) -> None:
    """Hold the sizes that config.json names against the environment's."""
    for name, size in (
        ("input_size", policy.architecture.observation_size),
        ("output_size", policy.architecture.action_size),
    ):
        if description.get(name, size) != size:
            raise UserError(f"{path}: {name}: expected {size} for this environment, found {description[name]}")
