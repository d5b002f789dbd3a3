"""What do the gates buy on the CT-graph? Runs that differ in one thing each, measured exactly.

    python studies/mechanism.py train --lanes 2     # every run that is not done; again after an interruption
    python studies/mechanism.py measure             # results/mechanism_d3/<arm>/<seed>.json of every run that is done
    python studies/mechanism.py report              # docs/mechanism.md

docs/mechanism.md says what each outcome means. The graph is deterministic, so the policy gives the probability of every
walk; episodes are drawn only for what the update sees.
"""

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from estimates import grid
from evaluate import description, rounded, trained, write_keys
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from rl import streams
from rl.algorithm.inner_loop import Adapted, unadapted
from rl.config import Parser, parse_options
from rl.envs.ctgraph.environment import DECISION, WAIT, CTGraph
from rl.errors import UserError
from rl.evaluation import runs
from rl.evaluation.comparisons import Difference, adjusted, level
from rl.plots import style
from rl.run.checkpoint import load_policy
from rl.run.config_file import copy_of_env_file
from rl.run.interrupts import exit_status
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import Actor, StreamName, rollout, update_on

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS, PAGE = ROOT / "runs/mechanism_d3", ROOT / "results/mechanism_d3", ROOT / "docs/mechanism.md"
PICTURE = ROOT / "docs/pictures/mechanism"
OPTIONS = """--env-name CTgraphEnvGoalChange-v0 --env-config-path envs/ctgraph/ctgraph_d3.json --num-context-params 10
  --hidden-size 300 --nonlinearity relu --fast-batch-size 25 --fast-lr 0.5 --meta-batch-size 40 --test-batch-size 40
  --num-test-steps 4 --test-freq 100"""
ITERATIONS = 401
PLAIN, HARD = "--match-params --nm-size 16", "--neuromodulation --nm-size 16"
CREDIT = "--pre-update-return 1 --exploration-credit 1"


class Arm(NamedTuple):
    """A kind of run: the letter that the page calls it by, its title, its options, and how many seeds it has; and
    which arm's runs it takes further, to so many iterations.
    """

    letter: str
    title: str
    options: str
    seeds: int
    continues: str = ""
    iterations: int = ITERATIONS


ARMS = {
    "plain": Arm("A", "plain, as many parameters", PLAIN, 10),
    "hard": Arm("B", "hard gates", HARD, 10),
    "plain_kl0005": Arm("E", "plain, max-kl 0.0005", f"{PLAIN} --max-kl 0.0005", 10),
    "hard_kl0005": Arm("E'", "hard gates, max-kl 0.0005", f"{HARD} --max-kl 0.0005", 10),
    "plain_explore": Arm("C", "plain, a fifth of the episodes explores", f"{PLAIN} --explore 0.2", 10),
    "hard_explore": Arm("D", "hard gates, a fifth of the episodes explores", f"{HARD} --explore 0.2", 5),
    "hard_blind": Arm("F", "hard gates that do not read φ", f"{HARD} --nm-without-context", 5),
    "plain_credit": Arm("H", "plain, credit for exploration", f"{PLAIN} {CREDIT}", 5),
    "hard_credit": Arm("I", "hard gates, credit for exploration", f"{HARD} {CREDIT}", 5),
    "plain_kl002": Arm("E2", "plain, max-kl 0.002", f"{PLAIN} --max-kl 0.002", 5),
    "hard_kl002": Arm("E2'", "hard gates, max-kl 0.002", f"{HARD} --max-kl 0.002", 5),
    "plain_300": Arm("G", "plain, 300 units", "", 5),
    # Still rising at 401.
    "plain_kl0005_1001": Arm("E", "the same, 1001 iterations", f"{PLAIN} --max-kl 0.0005", 3, "plain_kl0005", 1001),
    "hard_kl0005_1001": Arm("E'", "the same, 1001 iterations", f"{HARD} --max-kl 0.0005", 3, "hard_kl0005", 1001),
    "hard_kl002_1001": Arm("E2'", "the same, 1001 iterations", f"{HARD} --max-kl 0.002", 3, "hard_kl002", 1001),
}
# (title, arms that are added, arms that are subtracted): the differences that Holm's correction covers.
CONTRASTS = [
    ("hard gates (B − A)", ["hard"], ["plain"]),
    ("exploration, plain (C − A)", ["plain_explore"], ["plain"]),
    ("interaction (B − A) − (D − C)", ["hard", "plain_explore"], ["plain", "hard_explore"]),
    ("small step, plain (E − A)", ["plain_kl0005"], ["plain"]),
    ("small step, hard gates (E' − B)", ["hard_kl0005"], ["hard"]),
    ("credit, plain (H − A)", ["plain_credit"], ["plain"]),
    ("credit, hard gates (I − B)", ["hard_credit"], ["hard"]),
]
MEASURES = {
    "own": "success after one update on its own episodes",
    "coverage": "chance that 25 episodes find the leaf",
    "handed": "success after an update on one visit to the leaf",
}
# The arms of the figure: a row each for plain policies and hard gates, coloured by what is changed.
KINDS = [
    "as published",
    "max-kl 0.002",
    "max-kl 0.0005",
    "a fifth explores",
    "credit for exploration",
    "gates blind to φ",
]
DRAWN = {
    "plain": ["plain", "plain_kl002", "plain_kl0005", "plain_explore", "plain_credit"],
    "hard gates": ["hard", "hard_kl002", "hard_kl0005", "hard_explore", "hard_credit", "hard_blind"],
}
HEADINGS = ["success on its own episodes", "coverage", "success after a visit handed over"]
EARLY = 100  # iterations, in which coverage is won or lost
DRAWS = 40  # of the episodes that an update sees, for each leaf


def all_runs() -> list[tuple[str, int]]:
    """(arm, seed) of every run, in the order in which they are wanted: first five seeds of the arms that are tested."""
    tested = {name for _, added, taken in CONTRASTS for name in (*added, *taken)}
    every = [(name, seed) for name, arm in ARMS.items() for seed in range(1, arm.seeds + 1)]
    return sorted(every, key=lambda run: (run[1] > 5, run[0] not in tested, run[1]))


def options_of(arm: Arm) -> str:
    """main.py's options of an arm, without the seed."""
    return " ".join(f"{OPTIONS} --num-batches {arm.iterations} {arm.options}".split())


def train(lanes: int, arms: Collection[str]) -> None:
    """Run what is not done yet, so many runs at once with one thread each and at low priority."""
    wanted = [(name, seed) for name, seed in all_runs() if name in arms]
    left, lock = [run for run in wanted if not (RUNS / run[0] / str(run[1]) / "trained").exists()], threading.Lock()

    def lane() -> None:
        while True:
            with lock:
                if not left:
                    return
                name, seed = left.pop(0)
            folder, arm = RUNS / name / str(seed), ARMS[name]
            begun = RUNS / arm.continues / str(seed)
            if arm.continues and begun.exists() and not folder.exists():
                shutil.copytree(begun, folder, ignore=shutil.ignore_patterns("trained"))
            folder.mkdir(parents=True, exist_ok=True)
            options = [*shlex.split(options_of(arm)), "--seed", str(seed)]
            ours = ["--num-workers", "0", "--learner-threads", "1", "--save-freq", "10", "--quiet", "--resume", "auto"]
            places = ["--logdir", str(folder / "logs"), "--savedir", str(folder / "saves")]
            command = ["nice", "-n", "19", sys.executable, "main.py", *options, *ours, *places]
            with open(folder / "train.log", "ab") as log:
                status = subprocess.run(command, cwd=ROOT / "rl", stdout=log, stderr=log).returncode
            if status == 0:
                (folder / "trained").touch()

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Graph:
    """The graph, and a policy's exact chances in it."""

    def __init__(self, setup: Setup):
        self.setup, self.policy = setup, setup.policy
        assert isinstance(setup.env, CTGraph)
        self.count = setup.env.num_leaves
        # Every walk to a leaf: what it sees and does at each step that can go wrong.
        self.walks = self._walks()
        acting = np.isin(self.walks.infos["state_type"], (WAIT, DECISION))
        # infos tell the state after a step, so the step that acts in it is the next one.
        self.acting = np.concatenate([np.zeros_like(acting[:, :1]), acting[:, :-1]], axis=1)[..., 0]

    def environment(self, num_envs: int) -> CTGraph:
        """The environment with so many episodes."""
        return CTGraph(num_envs, **self.setup.spec.env_options)

    def _walks(self) -> Episodes:
        """The walk to each leaf that is its own goal, one episode a task."""
        env = self.environment(self.count)
        env.set_tasks([{"leaf": leaf} for leaf in range(self.count)])
        current, _ = env.reset(seed=list(range(self.count)))
        steps: dict[str, list] = {name: [] for name in ("observations", "actions", "rewards", "mask", "state_type")}
        running = np.ones(self.count, bool)
        for _ in range(env.horizon):
            safe, level = env.safe_actions(), np.searchsorted(env.level_ends, env.nodes, side="right")
            deciding = env.state_types == DECISION
            branch = env.paths[np.arange(self.count), np.minimum(level, env.paths.shape[1] - 1)] + 1
            actions = np.where(deciding, branch, safe.argmax(1))
            for name, value in (("observations", current), ("actions", actions), ("mask", running.astype(np.float32))):
                steps[name].append(value.copy())
            current, rewards, terminated, truncated, infos = env.step(actions)
            steps["rewards"].append(rewards)
            steps["state_type"].append(infos["state_type"])
            running = running & ~(terminated | truncated)
        arrays = {name: np.stack(values, axis=1)[:, :, None] for name, values in steps.items()}
        kind = arrays.pop("state_type")
        found = Episodes(**arrays, infos={"state_type": kind})
        assert (found.rewards.sum(1) > 0).all()
        return found

    def chances(self, params: dict[str, Tensor], context: Float[Tensor, "K C"]) -> Float[np.ndarray, "K leaves"]:
        """The probability that an episode ends in each leaf, with each of K contexts."""
        observations = torch.from_numpy(self.walks.observations[:, :, 0]).flatten(0, 1)
        actions = torch.from_numpy(self.walks.actions[:, :, 0]).flatten()
        with torch.no_grad():
            distribution = self.policy(params, context, observations.expand(len(context), -1, -1))
            log_prob = distribution.log_prob(actions.expand(len(context), -1)).view(len(context), self.count, -1)
        return np.exp((log_prob.double().numpy() * self.acting).sum(-1))

    def measure(self, params: dict[str, Tensor], seed: int, draws: int) -> dict[str, Float[np.ndarray, " leaves"]]:
        """The `MEASURES` of each leaf, over `draws` sets of episodes where those are drawn."""
        plan = self.setup.train_plan()
        leaves = np.repeat(np.arange(self.count), draws)
        start = unadapted(self.policy, params, len(leaves))
        assert start.context is not None
        env = self.environment(len(leaves) * plan.num_episodes)
        env.set_tasks([{"leaf": int(leaf)} for leaf in leaves for _ in range(plan.num_episodes)])
        stream = StreamName(seed, 0, streams.EVALUATE, 0)
        episodes = rollout(env, [Actor(self.policy, start, len(leaves))], plan.num_episodes, stream)
        own = self._after(start, episodes, leaves)
        for name in ("observations", "actions", "rewards", "mask"):
            getattr(episodes, name)[:, :, 0] = getattr(self.walks, name)[leaves, :, 0]
        handed = self._after(start, episodes, leaves)
        found = self.chances(params, start.context[:1])[0]
        return {"own": own, "coverage": 1 - (1 - found) ** plan.num_episodes, "handed": handed}

    def _after(self, start: Adapted, episodes: Episodes, leaves: np.ndarray) -> Float[np.ndarray, " leaves"]:
        """The chance of each leaf after the update on its tasks' episodes."""
        adapted, _, _ = update_on(self.policy, start, episodes, self.setup.train_plan(), 1)
        assert adapted.context is not None
        own = self.chances(adapted.params, adapted.context)[np.arange(len(leaves)), leaves]
        return own.reshape(self.count, -1).mean(1)


def measure() -> None:
    """Write the measures of every run that is done and not measured yet, of all its kept policies."""
    for name, seed in all_runs():
        place, target = RUNS / name / str(seed), RESULTS / name / f"{seed}.json"
        if target.exists() or not (place / "trained").exists():
            continue
        folder, last = trained(place, ARMS[name].iterations)
        run = runs.read_run(folder)
        config = dataclasses.replace(run.config, env_config_path=copy_of_env_file(folder, run.config))
        graph = Graph(Setup(config))
        iterations = sorted(int(path.stem.partition("-")[2]) for path in last.parent.glob("policy-*.pt"))
        kept = [number for number in iterations if number < 300 or number == iterations[-1]]
        curves = [
            graph.measure(
                load_policy(last.with_name(f"policy-{number}.pt"), graph.policy),
                seed,
                DRAWS if number == kept[-1] else DRAWS // 4,
            )
            for number in kept
        ]
        content = {
            "arm": name,
            "seed": seed,
            **description(folder, options_of(ARMS[name]).split()),
            "iterations": kept,
            **{measured: rounded([curve[measured].mean() for curve in curves]) for measured in MEASURES},
            "leaves": {measured: [np.round(curve[measured], 3).tolist() for curve in curves] for measured in MEASURES},
            "after_update": rounded(run.progress["running_returns/after_update"][::10]),
            "steps": outer_steps(run.progress),
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        write_keys(target, content)
        print(f"{name} {seed}: {', '.join(f'{key} {curves[-1][key].mean():.3f}' for key in MEASURES)}", flush=True)


def outer_steps(progress: Mapping[str, Any]) -> dict[str, float]:
    """Means over the first `EARLY` iterations: the KL of an outer step, the part that the line search takes of the step
    whose KL would be max-kl were the policy smooth, and that part's square; all 0 where it took none.
    """
    kl, part = (np.asarray(progress[f"trpo/{name}"][:EARLY]) for name in ("kl", "step_size"))
    return {name: rounded(values.mean()) for name, values in (("kl", kl), ("part", part), ("square", part**2))}


def lost(leaf: Sequence[float], iterations: Sequence[int]) -> int | None:
    """The iteration from which on a leaf's curve, once a half or more, stays below a half; None where it does not."""
    high = np.asarray(leaf) >= 0.5
    if high[-1] or not high.any():
        return None
    return iterations[int(np.flatnonzero(high)[-1]) + 1]


def report() -> None:
    """Write the tables into docs/mechanism.md, in the place that the page keeps for them."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        found.setdefault(path.parent.name, {})[int(path.stem)] = json.loads(path.read_text())
    if not found:
        raise UserError(f"{RESULTS}: holds no results; expected those of `python studies/mechanism.py measure`")
    rows = []
    for name, arm in ARMS.items():
        results = list(found.get(name, {}).values())
        cells = [level([result[measured][-1] for result in results]) for measured in MEASURES]
        fates = [_fates(results, measured) for measured in ("coverage", "handed")]
        rows.append([arm.letter, arm.title, f"{len(results)} of {arm.seeds}", *cells, *fates])
    lines = grid(["", "arm", "seeds", *MEASURES.values(), "leaves not covered", "leaves not adapted to"], rows)
    lines += _contrasts(found) + _steps(found)
    lines += [
        "![The three measures over the iterations, plain policies above, hard gates below](pictures/mechanism.png)"
    ]
    style.save(curves(found), PICTURE)
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition("<!-- results -->\n")
    PAGE.write_text(before + mark + "\n" + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _fates(results: Sequence[dict[str, Any]], measured: str) -> str:
    """What becomes of a run's leaves, the mean over runs, as text: never reached, lost again (when, the median)."""
    leaves = [(leaf, run["iterations"]) for run in results for leaf in np.transpose(run["leaves"][measured])]
    if not leaves:
        return ""
    never = sum(max(leaf) < 0.5 for leaf, _ in leaves) / len(results)
    ends = [end for leaf, iterations in leaves if (end := lost(leaf, iterations)) is not None]
    return f"{never:.1f}; {len(ends) / len(results):.1f}" + (f" ({np.median(ends):.0f})" if ends else "")


def _steps(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The table of outer steps."""
    rows = []
    for name, arm in ARMS.items():
        steps = [run["steps"] for run in found.get(name, {}).values()]
        if not steps or arm.continues:
            continue
        bound = parse_options(options_of(arm).split()).max_kl
        cells = [level([step["kl"] for step in steps], 4), level([step["part"] for step in steps])]
        cells.append(level([bound * step["square"] for step in steps], 4))
        rows.append([arm.letter, arm.title, f"{bound:g}", *cells])
    head = ["", "arm", "max-kl", "KL of an outer step", "part of the step taken", "max-kl × part²"]
    return grid(head, rows)


@style.printed
def curves(found: dict[str, dict[int, dict[str, Any]]]) -> Figure:
    """The measures over the iterations, a column each: a thick line is the mean of an arm's seeds."""
    figure, axes = style.panels(len(DRAWN), len(MEASURES), height=2.0, width=2.4, sharex=True, sharey=True)
    for panels, (title, arms) in zip(axes, DRAWN.items(), strict=True):
        for panel, measured in zip(panels, MEASURES, strict=True):
            for number, name in enumerate(arms):
                runs = list(found.get(name, {}).values())
                for run in runs:
                    panel.plot(run["iterations"], run[measured], color=style.COLOURS[number], linewidth=0.4, alpha=0.5)
                if runs:
                    mean = np.mean([run[measured] for run in runs], axis=0)
                    label = KINDS[number]
                    panel.plot(runs[0]["iterations"], mean, color=style.COLOURS[number], linewidth=1.8, label=label)
        panels[0].set_ylabel(title)
    for panel, heading in zip(axes[0], HEADINGS, strict=True):
        panel.set_title(heading)
    for panel in axes[-1]:
        panel.set_xlabel("iteration")
    style.legend_below(figure, Line2D([], [], color=style.GREY, linewidth=0.4, label="one seed; thick: their mean"))
    return figure


def _contrasts(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The differences of the primary measure, paired by seed, with Holm's correction over all that have three."""
    differences = {}
    for title, added, taken in CONTRASTS:
        seeds = set.intersection(*(set(found.get(name, {})) for name in (*added, *taken)))
        values = [
            sum(found[name][seed]["own"][-1] for name in added) - sum(found[name][seed]["own"][-1] for name in taken)
            for seed in sorted(seeds)
        ]
        differences[title] = Difference(tuple(values))
    raised = adjusted(differences)
    rows = [
        [title, str(len(difference.values)), str(difference), f"{raised[title]:.3f}" if title in raised else "not run"]
        for title, difference in differences.items()
    ]
    return grid(["difference in success after one update", "pairs", "mean", "p (Holm)"], rows)


def main(command_line: Sequence[str] | None = None) -> int:
    """Parse, do it, and turn errors into one line and an exit status."""
    parser = Parser(prog="mechanism.py", description="What the gates buy on the CT-graph.")
    parser.add_argument("what", choices=["train", "measure", "report"])
    parser.add_argument("--lanes", type=int, default=2, help="runs at once")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="which to train (default all)")

    def run(_: Any) -> None:
        options = parser.parse_args(command_line)
        torch.set_num_threads(1)
        if options.what == "train":
            train(options.lanes, options.arms)
        else:
            {"measure": measure, "report": report}[options.what]()

    return exit_status("mechanism.py", run)


if __name__ == "__main__":
    sys.exit(main())
