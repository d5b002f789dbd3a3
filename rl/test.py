"""Meta-test a saved policy: config.json + policy-N.pt -> returns after each adaptation step.

python test.py logs/<env>/<method>/<run>/config.json saves/<env>/<method>/<run>/policy-<n>.pt
"""

import dataclasses
import json
import math
import shutil
import sys
import time
from pathlib import Path

if not __package__:  # run as `python test.py`: the package stands one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rl import arguments, checkpoint
from rl.errors import UserError

GIGABYTE = 1e9


def main(command_line=None):
    """Parse, evaluate, and turn errors into one line and an exit status."""
    try:
        return test(parse(command_line))
    except UserError as error:
        print(f"test.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("test.py: interrupted", file=sys.stderr)
        return 130


def parse(command_line=None):
    """The command line of test.py; options left out are those of the run."""
    parser = arguments.Parser(prog="test.py", description="Evaluate a policy's adaptation.", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="config.json of the run")
    parser.add_argument("policy", type=Path, help="policy-<n>.pt, a state dict of this code or the published one")
    parser.add_argument("--env-config-path", default=None, help="environment's file; default: the run's copy of it")
    parser.add_argument("--num-tasks", type=int, default=None, help="tasks; default: the run's --test-batch-size")
    parser.add_argument("--num-test-steps", type=int, default=None, help="inner updates; default: the run's")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="which tasks (default test)")
    parser.add_argument("--seed", type=int, default=None, help="default: the run's")
    parser.add_argument("--num-workers", type=int, default=None, help="default: the run's")
    parser.add_argument("--activations", default="4", metavar="N|all", help="episodes a task to record (default 4)")
    parser.add_argument("--logdir", default=None, help="where the evaluation's folder goes (default: logs)")
    parser.add_argument("--expname", default=None, help="name appended to the evaluation's folder")
    return parser.parse_args(command_line)


def test(options):
    """Evaluate as the parsed options say; returns the exit status."""
    config, description = arguments.load(options.config)
    env_config_path = environment_file(options, config)
    config = overridden(config, options, env_config_path)
    episodes = recorded_episodes(options.activations, config.fast_batch_size)

    import numpy as np
    import torch

    from rl import activations
    from rl.build import Parts
    from rl.evaluation import evaluate, summarize
    from rl.logger import Logger
    from rl.plot import adaptation
    from rl.sampler import WorkerError

    torch.set_num_threads(1)
    parts = Parts(config)
    check_sizes(options.config, description, parts.policy)
    params = checkpoint.load_policy(options.policy, parts.policy)
    shape = activations.shape(parts, episodes)
    print(f"activations.npy: {episodes} episodes a task, {4 * math.prod(shape) / GIGABYTE:.2f} GB", flush=True)

    folder = checkpoint.Folders(config, suffix="_test").logs
    try:
        started = time.perf_counter()
        with parts.sampler() as sampler:
            tasks, phases = evaluate(parts, sampler, params, 0, config.test_batch_size, options.split)
        seconds = time.perf_counter() - started
        summaries = [summarize(phase.returns) for phase in phases.episodes]
        checkpoint.write_config(folder, config, parts.policy, env_config_path)
        checkpoint.save_policy(folder / "policy.pt", params)
        checkpoint.write_text(folder / "tasks.json", json.dumps(tasks) + "\n")
        np.save(folder / "rewards.npy", np.stack([episodes.rewards for episodes in phases.episodes], axis=-1))
        activations.write(folder, parts, params, phases, episodes)
        results = describe(options, parts, phases, summaries)
        checkpoint.write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
        logger = Logger(folder)
        logger.evaluation(0, phases, seconds)
        logger.close()
        adaptation(folder / "adaptation.png", [phase.returns for phase in phases.episodes], config)
    except BaseException as error:
        shutil.rmtree(folder)
        if not isinstance(error, WorkerError):
            raise
        print(f"test.py: {error}", file=sys.stderr)
        return 1

    print(table(summaries, config))
    print(f"evaluation:  {folder.resolve()}\npicture:     {(folder / 'adaptation.png').resolve()}")
    return 0


def describe(options, parts, phases, summaries):
    """What results.json says."""
    config = parts.config
    return {
        "policy": str(options.policy),
        "split": options.split,
        "seed": config.seed,
        "num_tasks": config.test_batch_size,
        "episodes_per_task": config.fast_batch_size,
        "fast_lr": list(parts.evaluation().learning_rates),
        "returns": [
            {"updates": updates, "mean": mean, "half_width_95": half_width}
            for updates, (mean, half_width) in enumerate(summaries)
        ],
        "returns_per_task": [episodes.returns.mean(axis=1).tolist() for episodes in phases.episodes],
    }


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
    """The run's `Config` with what the command line changes."""
    changes = {
        "test_batch_size": options.num_tasks,
        "num_test_steps": options.num_test_steps,
        "seed": options.seed,
        "num_workers": options.num_workers,
        "expname": options.expname,
        # Where a run was written says nothing about where it is read.
        "logdir": options.logdir or str(arguments.HERE / "logs"),
        "env_config_path": env_config_path,
    }
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})


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


def table(summaries, config):
    """The returns as text."""
    lines = [
        f"return on {config.test_batch_size} tasks × {config.fast_batch_size} episodes",
        "updates      mean    95% interval",
    ]
    for updates, (mean, half_width) in enumerate(summaries):
        lines.append(f"{updates:7d}{mean:10.3f}    ±{half_width:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
