"""What test.py's options ask for, found good before anything is computed or written."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl import envs, streams
from rl.config import HERE, Config, check_option, load_config
from rl.errors import UserError
from rl.evaluation import recordings
from rl.run import resources
from rl.run.build import Setup
from rl.run.folders import copied, group_of, load_policy
from rl.sampling import interventions
from rl.sampling.rollout import AdaptationPlan

# Meta-World's evaluation of meta-learning, as its documents describe it.
METAWORLD = {"adaptation episodes": 10, "evaluation episodes": 3, "horizon": 500}
# Options that replace the run's own: name on this command line -> name in `Config`.
OVERRIDING = {
    "num_tasks": "test_batch_size", "num_test_steps": "num_test_steps", "seed": "seed", "num_workers": "num_workers",
    "expname": "expname",
}  # fmt: skip


class Request(NamedTuple):
    """What an evaluation is made of, found good.

    Attributes:
        experiment: `Setup` of the run's options and those that replace them.
        params: θ.
        tasks: list of K tasks.
        sampling: `AdaptationPlan`, with the intervention asked for, if any.
        num_recorded: episodes to record of each task.
        probe: observations [N, O] of another evaluation; None: the evaluation's own are drawn.
    """

    experiment: Setup
    params: dict
    tasks: list
    sampling: AdaptationPlan
    num_recorded: int
    probe: np.ndarray | None


def checked(options, ranks):
    """The `Request` that the parsed options make.

    Args:
        options: as parsed.
        ranks: `rl.ranks.Ranks`, joined; this is rank 0.

    Raises:
        UserError: whatever is wrong with it, before anything is written.
    """
    run, description = load_config(options.config)
    config = overridden(run, options, environment_file(options, run))
    available = METAWORLD["evaluation episodes"] if options.protocol == "metaworld" else config.fast_batch_size
    num_recorded = recorded_episodes(options.activations, available)
    # Task sets drawn once for a run stay those of the run: another seed's test goals may have been trained on.
    experiment = Setup(config, run.seed, ranks=ranks)
    policy, intervention = experiment.policy, asked_intervention(options, config.seed)
    resources.check(config, experiment.env, policy, "--num-tasks", training=False, interventions=bool(intervention))
    tasks = experiment.first_tasks("--num-tasks", config.test_batch_size, options.split, streams.EVALUATE)
    check_sizes(options.config, description, policy)
    params = load_policy(options.policy, policy)
    if intervention:
        check_intervention(intervention, policy.architecture)
        if intervention.swaps_tasks:
            experiment.config = swappable(config, tasks)
            resources.check(experiment.config, experiment.env, policy, "--num-tasks", training=False, interventions=1)
    probe = options.probe and recordings.read_probe(options.probe, policy)
    sampling = experiment.test_sampling()._replace(intervention=intervention)
    return Request(experiment, params, tasks, sampling, num_recorded, probe)


def asked_intervention(options, seed):
    """The `Intervention` that the options ask for, or None."""
    intervention = interventions.Intervention(options.modulation, options.context, seed)
    return None if intervention == interventions.Intervention(seed=seed) else intervention


def check_intervention(intervention, architecture):
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


def swappable(config, tasks):
    """The `Config` with the smallest groups, of at least its own size, in each of which two tasks differ.

    Raises:
        UserError: all tasks are equal.
    """
    if not interventions.differ(tasks):
        raise UserError("swapped: no two tasks differ; expected other --num-tasks or --seed")
    size = config.tasks_per_group
    while not all(interventions.differ(tasks[start : start + size]) for start in range(0, len(tasks), size)):
        size += 1
    if size == config.tasks_per_group:
        return config
    print(f"swapped:     tasks in groups of {size}; in one of {config.tasks_per_group} none differ", flush=True)
    # Blocks, which hold whole groups, are the outer step's, and there is none.
    return dataclasses.replace(config, tasks_per_group=size, tasks_per_block=0)


def environment_file(options, config):
    """The environment's configuration file: the one named on the command line, else the run's own copy.

    A path that merely stands in config.json is never followed.
    """
    if options.env_config_path or not config.env_config_path:
        return options.env_config_path or ""
    return copied(options.config.parent, config, "; name one with --env-config-path")


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
        if "metaworld" not in envs.protocols(config.env_name):
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
