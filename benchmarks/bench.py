"""How fast is an iteration, and how far from what the machine allows?

    python -m benchmarks.bench [--cases [navigation ctgraph_d2 ...]] [--iterations 5] [--scaling] [--memory]

For each command of docs/experiments.md: seconds an iteration (median over the counted ones), split into sampling and
learning; environment steps a second; the share of the learning time that its matrix multiplications alone would take at
this machine's float32 rate, measured in the same run; for MuJoCo the share of what its physics alone would reach; and
the peak memory of the process tree. With `--memory`, instead: the
learner's memory after 1, 2 and 30 outer steps. These machines are shared: quote the ratios.
"""

import argparse
import contextlib
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

from rl import start

# As a program of the package does, before torch is imported.
start.compute_alone()
start.keep_freed_memory()

# isort: split
import torch
from torch.utils.flop_counter import FlopCounterMode

from rl import streams
from rl.config import parse_options
from rl.run.setup import Setup

CTGRAPH = ROOT / "rl/envs/ctgraph"
COMMON = "--nonlinearity relu --test-batch-size 40 --num-test-steps 4 --num-workers 4 --neuromodulation"
LOCOMOTION = (
    "--num-context-params 50 --hidden-size 200 --fast-batch-size 20 --fast-lr 10.0 --meta-batch-size 40 --nm-size 32 "
    "--nm-gate soft"
)
# name -> (options besides the common ones, iterations before the counted ones). CT-graph episodes are short until the
# policy has learnt to walk on, so those cases learn for a while first.
CASES = {
    "navigation": (
        "--env-name 2DNavigation-v0 --num-context-params 5 --hidden-size 100 --fast-batch-size 20 --fast-lr 0.5 "
        "--meta-batch-size 20 --nm-size 4 --seed 42",
        2,
    ),
    "ctgraph_d2": (
        f"--env-name CTgraphEnvGoalChange-v0 --env-config-path {CTGRAPH}/ctgraph_d2.json --num-context-params 5 "
        "--hidden-size 200 --fast-batch-size 20 --fast-lr 0.5 --meta-batch-size 20 --nm-size 8 --seed 42",
        60,
    ),
    "ctgraph_d3": (
        f"--env-name CTgraphEnvGoalChange-v0 --env-config-path {CTGRAPH}/ctgraph_d3.json --num-context-params 10 "
        "--hidden-size 300 --fast-batch-size 25 --fast-lr 0.5 --meta-batch-size 40 --nm-size 16 --seed 42",
        60,
    ),
    "ctgraph_d4": (
        f"--env-name CTgraphEnvGoalChange-v0 --env-config-path {CTGRAPH}/ctgraph_d4.json --num-context-params 20 "
        "--hidden-size 600 --fast-batch-size 60 --fast-lr 0.5 --meta-batch-size 20 --nm-size 32 --seed 42",
        60,
    ),
    "half_cheetah_dir": (f"--env-name HalfCheetahDir-v1 {LOCOMOTION} --seed 378", 1),
    "half_cheetah_vel": (f"--env-name HalfCheetahVel-v1 {LOCOMOTION} --seed 42", 1),
    "ml1_push": (f"--env-name ML1Push-v2 {LOCOMOTION} --seed 42", 1),
    "ml45": (
        "--env-name ML45-v2 --num-context-params 100 --hidden-size 200 --fast-batch-size 10 --fast-lr 10.0 "
        "--meta-batch-size 45 --test-batch-size 20 --nm-size 32 --nm-gate soft --seed 378",
        1,
    ),
}

# What is differentiated by graphs, which once outlived their step.
MEMORY_CASES = ("--maml --nm-gate soft", "--nm-gate soft --nonlinearity silu")
STEPS = (1, 2, 30)


def main():
    """Measure the cases asked for and print a row each; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--iterations", type=int, default=5, help="counted iterations of each case")
    parser.add_argument("--evaluation", action="store_true", help="time an evaluation of each case too")
    parser.add_argument("--scaling", action="store_true", help="add rows that change one option of HalfCheetahDir")
    parser.add_argument("--memory", action="store_true", help="print only what outer steps leave in memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print("  ".join(f"{column:>16}" for column in ("case", *(f"MB after {count}" for count in STEPS))), flush=True)
        return all_alone(report_memory, [(title, f"{CASES['navigation'][0]} {title}") for title in MEMORY_CASES])
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, GEMM {gemm_rate() / 1e9:.0f} GFLOP/s on all of them")
    columns = ("case", "sampling s", "learning s", "steps/s", "GEMM share", "physics share", "peak MB", "evaluation s")
    print("  ".join(f"{column:>16}" for column in columns), flush=True)
    rows = [(name, *CASES[name]) for name in options.cases]
    if options.scaling:
        # Beside the case half_cheetah_dir itself: 4 workers, 40 tasks, 200 units, half of the machine's memory.
        for extra in (
            *("--num-workers 1", "--num-workers 2"),
            *("--meta-batch-size 10", "--meta-batch-size 20"),
            *("--hidden-size 100", "--hidden-size 400"),
            "--learner-memory 0.001",
        ):
            rows.append((extra.lstrip("-"), f"{CASES['half_cheetah_dir'][0]} {extra}", 1))
    return all_alone(report, [(*row, options) for row in rows])


def all_alone(report, rows):
    """Report each row in a process of its own: the learner keeps what it freed, and the next row must not inherit that.

    Where one fails, standard error says why, and the others follow.

    Args:
        report: function of a row's entries.
        rows: list of tuples, the title first.

    Returns:
        The exit status: 1 where a row failed.
    """
    status = 0
    for row in rows:
        process = get_context("spawn").Process(target=report, args=row)
        process.start()
        process.join()
        if process.exitcode != 0:
            status = 1
            print(f"{Path(sys.argv[0]).name}: {row[0]}: exit status {process.exitcode}", file=sys.stderr, flush=True)
    return status


def report(name, text, warm_up, options):
    """Run one case and print its row."""
    torch.set_num_threads(1)
    config = parse_options(f"{COMMON} {text}".split())
    memory = Memory()
    figures = measure(config, warm_up, options.iterations, options.evaluation, memory)
    bare = bare_rate(config) if config.env_name in BARE else None
    cells = (
        f"{figures['sampling']:.3f}",
        f"{figures['learning']:.3f}",
        f"{figures['rate']:.0f}",
        f"{figures['flops'] / gemm_rate() / figures['learning']:.0%}",
        f"{figures['rate'] / bare:.0%}" if bare else "-",
        f"{memory.peak / 1e6:.0f}",
        f"{figures['evaluation']:.2f}" if options.evaluation else "-",
    )
    print("  ".join(f"{cell:>16}" for cell in (name, *cells)), flush=True)


def report_memory(title, text):
    """Take outer steps of navigation and print the learner's memory after some of them."""
    torch.set_num_threads(1)
    config = parse_options(f"{COMMON} {text}".split())
    setup = Setup(config)
    learner, params, cells = setup.learner(), setup.initial_params(), [title]
    with setup.sampler() as sampler:
        for iteration in range(max(STEPS)):
            params, _ = learner.step(params, *sample(setup, sampler, params, iteration).episodes)
            if iteration + 1 in STEPS:
                cells.append(f"{proportional_size(os.getpid()) / 1e6:.0f}")
    print("  ".join(f"{cell:>16}" for cell in cells), flush=True)


def sample(setup, sampler, params, iteration):
    """The rollouts of an iteration."""
    tasks = setup.sample_tasks(setup.config.meta_batch_size, "train", iteration, streams.TRAIN)
    stream = setup.stream(iteration, streams.TRAIN)
    return sampler.sample(params, tasks, setup.train_plan(), stream, setup.tasks_per_block)


def measure(config, warm_up, counted, evaluation, memory, examine=None):
    """Train for some iterations; medians over the counted ones. Memory is watched in the others alone: to look takes a
    fifth of a core where a process has gigabytes. `examine(setup, learner, params, rollouts)`, if given, has more
    figures of the last iteration: a dict.
    """
    setup = Setup(config)
    learner, params = setup.learner(), setup.initial_params()
    sampling, learning, rates = [], [], []
    with setup.sampler() as sampler:

        def iterate(iteration):
            started = now()
            rollouts = sample(setup, sampler, params, iteration)
            sampled = now()
            after, _ = learner.step(params, *rollouts.episodes)
            learning.append(now() - sampled)
            sampling.append(sampled - started)
            rates.append(sum(episodes.steps for episodes in rollouts.episodes) / sampling[-1])
            return after, rollouts

        with memory:
            for iteration in range(warm_up):
                params, rollouts = iterate(iteration)
        for iteration in range(warm_up, warm_up + counted):
            params, rollouts = iterate(iteration)
        with memory:
            flops = step_flops(learner, params, rollouts)
        more = examine(setup, learner, params, rollouts) if examine else {}
        evaluated = 0.0
        if evaluation:
            started = time.perf_counter()
            tasks = setup.sample_tasks(config.test_tasks, "test", 0, streams.EVALUATE)
            stream = setup.stream(0, streams.EVALUATE)
            sampler.sample(params, tasks, setup.test_plan(), stream, config.tasks_per_group)
            evaluated = time.perf_counter() - started
    return {
        "sampling": statistics.median(sampling[-counted:]),
        "learning": statistics.median(learning[-counted:]),
        "rate": statistics.median(rates[-counted:]),
        "flops": flops,
        "evaluation": evaluated,
        **more,
    }


def now():
    """The time, once a GPU that is in use has done what it was told to."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def in_this_thread(learner):
    """Its chunks are computed here, one after the other: what counts operations sees one thread alone."""
    learner.compute.map = lambda function, items: list(map(function, items))
    try:
        yield
    finally:
        del learner.compute.map


def step_flops(learner, params, rollouts):
    """Floating-point operations in the matrix products of one outer step."""

    def in_place(shape_self, shape_a, shape_b, **_):
        return 2 * shape_a[0] * shape_a[1] * shape_b[1]

    mapping = {torch.ops.aten.addmm_: in_place}
    with in_this_thread(learner), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        learner.step(params, *rollouts.episodes)
    return counter.get_total_flops()


def gemm_rate(seconds=0.5, tries=4, device="cpu"):
    """Float32 multiplications of square matrices in FLOP/s, on all cores at once or on the GPU: the best of some tries,
    a limit.
    """
    size, threads = (1024, os.cpu_count() or 1) if device == "cpu" else (8192, 1)
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)

    def work(_):
        count, end = 0, time.perf_counter() + seconds
        while now() < end:  # a GPU is only told to begin: it must end, too, lest thousands of products wait for it
            torch.mm(left, right)
            count += 1
        return count

    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(tries):
            started = now()
            count = sum(pool.map(work, range(threads)))
            rates.append(2 * size**3 * count / (now() - started))
    return max(rates)


def bare_rate(config):
    """Environment steps a second of the physics alone on all cores, with as many episodes as a group has: the best of
    some tries, a limit.
    """
    cores = os.cpu_count() or 1
    num_envs = config.tasks_per_group * config.fast_batch_size
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        return max(sum(pool.map(BARE[config.env_name], [num_envs] * cores)) for _ in range(3))


def push_steps(num_envs, seconds=2.0):
    """One process's share of `bare_rate` for Meta-World's push: its model's steps, nothing read."""
    import metaworld
    import mujoco

    env = metaworld.ML1("push-v3", seed=0).train_classes["push-v3"]()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
        count += 1
    return count / (time.perf_counter() - started)


def cheetah_steps(num_envs, frame_skip=5, seconds=2.0):
    """One process's share of `bare_rate` for the Half-Cheetah: `mujoco.rollout` and nothing else."""
    import gymnasium
    import mujoco
    import numpy as np
    from mujoco import rollout

    model = mujoco.MjModel.from_xml_path(str(Path(gymnasium.__file__).parent / "envs/mujoco/assets/half_cheetah.xml"))
    data = mujoco.MjData(model)
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    mujoco.mj_getState(model, data, start := np.zeros(size), mujoco.mjtState.mjSTATE_FULLPHYSICS)
    rng = np.random.default_rng(0)
    state = np.repeat(start[None], num_envs, 0)
    with rollout.Rollout(nthread=0) as roller:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            control = np.repeat(rng.uniform(-1, 1, (num_envs, 1, model.nu)), frame_skip, 1)
            states, _ = roller.rollout(model, data, state, control, nstep=frame_skip)
            state = states[:, -1]
            count += num_envs
        return count / (time.perf_counter() - started)


BARE = {"HalfCheetahDir-v1": cheetah_steps, "HalfCheetahVel-v1": cheetah_steps, "ML1Push-v2": push_steps}


class Memory:
    """The peak, over the times inside, of the proportional set sizes of this process and its descendants (Linux)."""

    def __init__(self):
        self.peak = 0

    def __enter__(self):
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.1):
            self.peak = max(self.peak, sum(proportional_size(pid) for pid in family(os.getpid())))


def family(pid):
    """A process and its descendants."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass
    return found


def proportional_size(pid):
    """Bytes of a process's memory, shared pages counted in proportion; 0 once it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
