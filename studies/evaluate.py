"""Evaluate one trained run and write what is kept of it: results/<experiment>/<method>/<seed>.json, and beside it, of
some seeds, the folder <seed>/ with the policy.

python studies/evaluate.py EXPERIMENT METHOD SEED --runs runs --results results
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import exact
import numpy as np
import table
from kept import rounded, write_keys
from partial import archive

from rl import envs
from rl.config import Parser
from rl.errors import UserError
from rl.evaluation import gates, runs, similarity
from rl.files import read_json, write_json
from rl.run.interrupts import exit_status

ROOT = Path(__file__).resolve().parents[1]
# What is also evaluated in experiments with `checks`: test.py's interventions, of modulated policies and of all.
FROZEN = "gates as before adaptation"  # the check that says whether a policy adapts through its gates
CHECKS_OF_GATES = {
    FROZEN: ["--modulation", "frozen"],
    "all gates 1": ["--modulation", "ones"],
    "gates of another task": ["--modulation", "swapped"],
    "context at the gates alone": ["--context", "gates"],
}
CHECKS = {"context of another task": ["--context", "swapped"]}


def evaluate(experiment: str, method: str, seed: int, runs_folder: Path, results_folder: Path) -> None:
    """Evaluate the last policy of a run, write its JSON, and keep the policy of the experiment's first seeds.

    Raises:
        UserError: the table has no such experiment or method, the run has not finished, or test.py failed.
    """
    rows = table.read()
    row = rows.row(experiment, method)
    place = runs_folder.resolve() / experiment / method / str(seed)
    folder, policy = trained(place, row.iterations)
    run = runs.read_run(folder)
    content = {
        "experiment": experiment,
        "method": method,
        "seed": seed,
        **description(folder, rows.options(experiment, method)),
        "iterations": row.iterations,
        "seconds": {name: rounded(run.curve(f"time/{name}")[1].mean()) for name in ("sampling", "learning")},
        "curves": {
            name: rounded(run.progress[tag], digits)
            for name, tag, digits in (
                ("before_update", "running_returns/before_update", 4),
                ("after_update", "running_returns/after_update", 4),
                ("kl", f"{run.config.outer_step}/kl", 2),
            )
        },
    }
    if row.exact:
        content["exact"] = exact.curves(run, policy)
    else:
        content |= on_test_tasks(row, run, policy, place / "evaluations")
    target = results_folder / experiment / method
    target.mkdir(parents=True, exist_ok=True)
    if seed in row.seeds[: row.keep_policy]:
        keep(folder, policy, target / str(seed))
    write_keys(target / f"{seed}.json", content)
    archive(results_folder, Path(experiment, method, str(seed))).unlink(missing_ok=True)


def on_test_tasks(row: table.Experiment, run: runs.Run, policy: Path, evaluations: Path) -> dict[str, Any]:
    """What test.py finds of a policy, with the checks that the row has; written in a folder `evaluations`.

    Raises:
        UserError: test.py failed.
    """
    folder, tasks = run.path, ["--num-tasks", str(row.tasks)]
    if row.test_episodes:
        tasks += ["--test-batch-size", str(row.test_episodes)]
    evaluated = test(folder, policy, evaluations / "normal", row.checks, tasks)
    found: dict[str, Any] = {"test_episodes": evaluated.returns.shape[2], "test": measured(evaluated)}
    if row.checks:
        checks = CHECKS | (CHECKS_OF_GATES if run.config.neuromodulation else {})
        found["similarity"] = alike(evaluated)
        found["checks"] = {
            name: mean(measured(test(folder, policy, evaluations / name.replace(" ", "_"), False, [*tasks, *options])))
            for name, options in checks.items()
        }
    if row.halved:
        found["halved"] = measured(test(folder, policy, evaluations / "halved", False, [*tasks, "--halve-test-lr"]))
    return found


def trained(place: Path, iterations: int) -> tuple[Path, Path]:
    """The log folder and the last policy of the run in a folder that has finished all iterations.

    Raises:
        UserError: none has, or several have.
    """
    folders = [path.parent for path in sorted((place / "logs").glob("*/*/*/config.json"))]
    policies = [place / "saves" / Path(*folder.parts[-3:]) / f"policy-{iterations - 1}.pt" for folder in folders]
    found = [pair for pair in zip(folders, policies, strict=True) if pair[1].is_file()]
    if len(found) != 1:
        names = ", ".join(folder.name for folder, _ in found) or "none"
        raise UserError(f"{place}: expected one run that has its policy-{iterations - 1}.pt, found {names}")
    return found[0]


def keep(folder: Path, policy: Path, target: Path) -> None:
    """Copy a policy, the environment's file and config.json, without the folders of the machine that it was made on."""
    target.mkdir(exist_ok=True)
    shutil.copyfile(policy, target / "policy.pt")
    for file in folder.glob("*.json"):
        shutil.copyfile(file, target / file.name)
    config = read_json(folder / "config.json")
    for name in ("logdir", "savedir"):
        config.pop(name)
    write_json(target / "config.json", config)


def test(folder: Path, policy: Path, logdir: Path, recorded: bool, options: Sequence[str]) -> runs.Evaluation:
    """Run test.py.

    Raises:
        UserError: it failed, after printing why.
    """
    shutil.rmtree(logdir, ignore_errors=True)
    recording = ["--activations", "2" if recorded else "0", "--num-workers", "1", "--logdir", logdir]
    command = [sys.executable, "test.py", folder / "config.json", policy, *recording, *options]
    status = subprocess.run(list(map(str, command)), cwd=ROOT / "rl").returncode
    if status:
        raise UserError(f"{policy}: test.py ended with exit status {status}; its message stands above")
    (results,) = logdir.glob("*/*/*/results.json")
    return runs.read_evaluation(results.parent)


def description(folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """What a run was made with, and what it was continued with if that differs. What older code did not write is
    None.
    """
    config = read_json(folder / "config.json")
    made = {"options": " ".join(options), "commit": config.get("git_commit")}
    made |= {name: config.get(name) for name in ("versions", "processor", "gpu")}
    return made | ({"continued": config["continued"]} if "continued" in config else {})


def measured(evaluation: runs.Evaluation) -> dict[str, Any]:
    """Means over the episodes of each task, after 0, 1, … updates: [updates + 1, tasks]."""
    found = {"returns": rounded(evaluation.returns.mean(axis=2).T)}
    if "success_per_task" in evaluation.results:
        found["success"] = rounded(evaluation.results["success_per_task"])
    else:
        success = envs.success(evaluation.config.env_name, np.load(evaluation.file("rewards.npy")))
        if success is not None:
            found["success"] = rounded(success.mean(axis=1).T)
    return found


def mean(found: dict[str, Any]) -> dict[str, Any]:
    """The same, means over the tasks: all that is read of a check, and a hundredth of the bytes."""
    return {name: rounded(np.mean(values, axis=1)) for name, values in found.items()}


def alike(evaluation: runs.Evaluation) -> dict[str, dict[str, Any]]:
    """Linear CKA between tasks after the last update, its permutation null, and what the gates do, layer by layer."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in evaluation.probe.items():
        layer, _, part = name.partition(".")
        if part == "output":
            result = similarity.similarity(values[:, -1])
            found.setdefault(layer, {}).update(cka=rounded(result.mean), null=rounded(result.null_mean))
        elif part == "gates":
            summary = gates.shares(values)
            found.setdefault(layer, {}).update(
                constant_gates=rounded(summary["constant"]), flips_between_tasks=rounded(summary["flips_between_tasks"])
            )
    return found


def main(command_line: Sequence[str] | None = None) -> int:
    """Parse, evaluate, and turn errors into one line and an exit status."""
    parser = Parser(prog="evaluate.py", description="Evaluate a trained run of the experiments.")
    parser.add_argument("experiment")
    parser.add_argument("method")
    parser.add_argument("seed", type=int)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--results", type=Path, default=ROOT / "results")

    def run(_: Any) -> None:
        options = parser.parse_args(command_line)
        evaluate(options.experiment, options.method, options.seed, options.runs, options.results)

    return exit_status("evaluate.py", run)


if __name__ == "__main__":
    sys.exit(main())
