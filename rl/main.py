"""Meta-train a policy: sample, adapt, sample, step, log, save.

python main.py --env-name 2DNavigation-v0 --neuromodulation --nm-size 4 ...
"""

import sys
import time
from pathlib import Path

if not __package__:  # run as `python main.py`: the package stands one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rl import arguments, checkpoint, streams
from rl.errors import UserError


def main(command_line=None):
    """Parse, train, and turn errors into one line and an exit status."""
    try:
        return train(arguments.parse(command_line))
    except UserError as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("main.py: interrupted", file=sys.stderr)
        return 130


def train(config):
    """Meta-train as a `Config` says; returns the exit status."""
    import torch

    from rl.build import Parts
    from rl.evaluation import evaluate, summarize
    from rl.logger import Logger
    from rl.sampler import WorkerError

    torch.set_num_threads(1)
    parts = Parts(config)
    learner = parts.learner()
    params = parts.initial_params()
    folders = checkpoint.Folders(config)
    for folder in (folders.logs, folders.saves):
        checkpoint.write_config(folder, config, parts.policy, config.env_config_path)
    print(f"{config.method} on {config.env_name}: logs in {folders.logs}, policies in {folders.saves}", flush=True)

    logger = Logger(folders.logs)
    try:
        with parts.sampler() as sampler:
            for iteration in range(config.num_batches):
                started = time.perf_counter()
                tasks = parts.tasks(config.meta_batch_size, "train", iteration, streams.TRAIN)
                origin = parts.origin(iteration, streams.TRAIN)
                phases = sampler.sample(params, tasks, parts.training(), origin)
                sampled = time.perf_counter()
                params, report = learner.step(params, *phases.episodes)
                times = {"sampling": sampled - started, "learning": time.perf_counter() - sampled}
                logger.training(iteration, phases, report, times, sampler.restarts)
                before, after = (summarize(episodes.returns).mean for episodes in phases.episodes)
                print(
                    f"iteration {iteration}: return {before:.3f} -> {after:.3f}, kl {report.kl:.4f}, "
                    f"sampling {times['sampling']:.2f} s, learning {times['learning']:.2f} s",
                    flush=True,
                )

                if iteration % config.test_freq == 0:
                    started = time.perf_counter()
                    _, tested = evaluate(parts, sampler, params, iteration, config.test_batch_size)
                    logger.evaluation(iteration, tested, time.perf_counter() - started)
                    means = ", ".join(f"{summarize(episodes.returns).mean:.3f}" for episodes in tested.episodes)
                    print(f"  evaluation after 0, 1, 2, … updates: {means}", flush=True)

                if iteration % config.save_freq == 0 or iteration == config.num_batches - 1:
                    checkpoint.save_policy(folders.policy(iteration), params)
    except WorkerError as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    finally:
        logger.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
