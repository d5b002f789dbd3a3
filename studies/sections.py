"""An experiment's part of docs/results.md: what its runs are, how they compare, and the tables of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from estimates import bullets, grid, in_words
from evaluate import SWAPPED
from exploration import exploration
from table import Experiment, Method

from rl.evaluation.comparisons import FEWEST, UNCLEAR, Difference, level, number, verdicts
from rl.files import read_json

# Where methods are compared: after the one update that training is for, and after all that evaluation makes.
AFTER = {"after 1 update": 1, "after the last update": -1}

Run = dict[str, Any]  # what studies/evaluate.py writes of one
Found = dict[str, dict[int, Run]]  # method -> seed -> results
Methods = dict[str, Method]


def load(row: Experiment, folder: Path) -> Found:
    """The results of an experiment that are there.

    Raises:
        UserError: one cannot be read.
    """
    found = {}
    for method in row.methods:
        runs = {seed: Path(folder, row.name, method, f"{seed}.json") for seed in row.seeds}
        runs = {seed: read_json(path) for seed, path in runs.items() if path.is_file()}
        if runs:
            found[method] = runs
    return found


def after(content: Run, updates: int = -1, kind: str = "returns") -> float:
    """A run's mean over test tasks after a number of updates."""
    return float(np.mean(content["test"][kind][updates]))


def difference(runs: dict[int, Run], baseline: dict[int, Run], updates: int) -> Difference:
    """A method's return after a number of updates minus the baseline's."""
    return Difference.between(runs, baseline, lambda run: after(run, updates))


def comparisons(row: Experiment, found: Found) -> dict[tuple[str, str], Difference]:
    """Every method that was run against the baseline: (method, key of `AFTER`) -> difference."""
    baseline = found.get(row.baseline, {})
    return {
        (method, when): difference(runs, baseline, updates)
        for when, updates in AFTER.items()
        for method, runs in found.items()
        if method != row.baseline
    }


def section(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The lines of an experiment's part of docs/results.md."""
    paper = f"the paper: {row.paper_iterations}" if row.paper_iterations else "not in the paper"
    lines = [f"## {row.title}", "", f"{row.iterations} iterations ({paper}). {row.paper}", ""]
    if not found:
        return [*lines, "Not run.", ""]
    lines += [sentence(row, found, methods), "", *returns(row, found, methods), *compared(row, found, methods)]
    lines += exploration(row, found, methods)
    if row.checks:
        lines += checked(row, found, methods)
    lines += [f"![{row.title}: learning curves](pictures/results_{row.name}.png)", ""]
    return [*lines, f"{made(found)} {row.note}".strip(), ""]


def sentence(row: Experiment, found: Found, methods: Methods) -> str:
    """The methods that differ significantly from the baseline, and the others, in words."""
    if row.baseline not in found:
        return "Nothing is compared yet: the baseline was not run."
    differences = comparisons(row, found)
    significant = verdicts(differences)
    if not significant:
        if len(row.seeds) < FEWEST:
            return f"Nothing is compared here: that takes {FEWEST} seeds. Differences between fewer prove nothing."
        return f"Nothing is compared yet: that takes {FEWEST} seeds."
    titles = {(method, when): methods[method].title for method, when in differences}
    lines = [f"Compared with {methods[row.baseline].title}:", ""]
    for when in AFTER:
        of_then = {key: verdict for key, verdict in significant.items() if key[1] == when}
        lines += [f"- {when}, {phrase}" for phrase in in_words(of_then, differences, titles)]
    return "\n".join(lines)


def returns(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of returns, of the success rate if the environment reports it, and of outer steps."""
    updates = len(next(iter(next(iter(found.values())).values()))["test"]["returns"])
    succeeds = any("success" in run["test"] for runs in found.values() for run in runs.values())
    head = ["method", "seeds", *(f"return after {count}" for count in range(updates)), *["success rate"] * succeeds]
    head += ["outer steps accepted", "of the last tenth"]
    rows = []
    for method in row.methods:
        if method not in found:
            rows.append([methods[method].title, "not run", *[""] * (len(head) - 2)])
            continue
        runs = found[method].values()
        cells = [methods[method].title, f"{len(runs)} of {len(row.seeds)}"]
        cells += [level([after(run, count) for run in runs]) for count in range(updates)]
        if succeeds:
            cells.append(level([after(run, kind="success") for run in runs]))
        rows.append([*cells, *(level([accepted(run, share) for run in runs]) for share in (1, 0.1))])
    return grid(head, rows)


def accepted(run: Run, share: float = 1) -> float:
    """The share of outer steps that the line search accepted (the others leave the policy as it was), in the last
    `share` of a run's iterations, at least in one.
    """
    steps = run["curves"]["kl"]
    return float(np.mean([bool(kl) for kl in steps[-max(1, round(share * len(steps))) :]]))


def compared(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of differences from the baseline."""
    differences = comparisons(row, found)
    if not any(difference.values for difference in differences.values()):
        return []
    head = [f"minus {methods[row.baseline].title}"]
    for when in AFTER:
        head += [when, "probability of improvement"]
    rows = []
    for method in found:
        if method != row.baseline:
            pairs = [differences[method, when] for when in AFTER]
            rows.append([methods[method].title, *(cell for pair in pairs for cell in (str(pair), pair.improvement))])
    return grid(head, rows)


def checked(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """Representations and interventions of the runs that have them, and how many have none."""
    having = {method: {seed: run for seed, run in runs.items() if "checks" in run} for method, runs in found.items()}
    having = {method: runs for method, runs in having.items() if runs}
    missing = sum(len(runs) - len(having.get(method, {})) for method, runs in found.items())
    lines = representations(row, having, methods) + interventions(having, methods) if having else []
    return [*lines, f"Without representations and interventions: {missing} runs.", ""] if missing else lines


def representations(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """How alike tasks are represented, and what gates do."""
    layers = list(next(iter(next(iter(found.values())).values()))["similarity"])

    def alike(layer: str, name: str) -> Callable[[Run], float | None]:
        return lambda run: run["similarity"][layer].get(name)

    rows, last = [], {}
    for method, runs in found.items():
        for layer in layers:
            entries = [run["similarity"][layer] for run in runs.values()]
            apart = Difference.between(runs, found.get(row.baseline, {}), alike(layer, "cka"))
            if method != row.baseline:
                last[method] = apart
            flips = [entry["flips_between_tasks"][-1] for entry in entries if entry.get("flips_between_tasks")]
            rows.append([
                methods[method].title, layer.removeprefix("layer"), level([entry["cka"] for entry in entries]),
                "" if method == row.baseline else str(apart), level([entry["null"] for entry in entries]),
                level([entry.get("constant_gates") for entry in entries]), level(flips),
            ])  # fmt: skip
    head = [
        "method", "layer", "CKA", "minus the baseline's", "CKA of unrelated tasks", "units whose gate keeps its sign",
        "gates whose sign differs between two tasks",
    ]  # fmt: skip
    titles = {method: methods[method].title for method in last}
    phrases = in_words(verdicts(last), last, titles, ("more alike", "less alike", UNCLEAR))
    return [
        "Linear CKA between tasks after the last update (1: all tasks are represented alike), and what it would be of "
        "tasks whose representations have nothing to do with each other (the mean of permutations).",
        *bullets(f"In the last layer, compared with {methods[row.baseline].title}:", phrases),
        *grid(head, rows),
    ]


def interventions(found: Found, methods: Methods) -> list[str]:
    """What an adapted policy loses under interventions, paired by seed."""
    names = list(dict.fromkeys(name for runs in found.values() for run in runs.values() for name in run["checks"]))

    def changed(runs: dict[int, Run], name: str) -> Difference:
        checked = [run for run in runs.values() if name in run["checks"]]
        return Difference(tuple(float(np.mean(run["checks"][name]["returns"][-1])) - after(run) for run in checked))

    rows, swapped = [], {}
    for method, runs in found.items():
        if any(SWAPPED in run["checks"] for run in runs.values()):
            swapped[method] = changed(runs, SWAPPED)
        changes = [str(changed(runs, name)) for name in names]
        rows.append([methods[method].title, level([after(run) for run in runs.values()]), *changes])
    titles = {method: methods[method].title for method in swapped}
    phrases = in_words(verdicts(swapped), swapped, titles, ("gains", "loses", UNCLEAR))
    return [
        "By how much an intervention changes the adapted policy's return after the last update, on the same tasks with "
        "the same random numbers.",
        *bullets(f"With the {SWAPPED}:", phrases),
        *grid(["method", "as it is", *names], rows),
    ]


def made(found: Found) -> str:
    """What runs were made with."""
    runs = [run for kept in found.values() for run in kept.values()]
    # What a run was continued with counts as what it began with.
    later = [entry for run in runs for entry in run.get("continued", [])]
    hashes = [*(run["commit"] for run in runs), *(entry.get("git_commit") for entry in later)]
    commits = ", ".join(dict.fromkeys(map(short, hashes)))
    hours = {}
    for run in runs:
        places = " and then ".join(dict.fromkeys(map(place, [run, *run.get("continued", [])])))
        seconds = run["iterations"] * (run["seconds"]["sampling"] + run["seconds"]["learning"])
        hours.setdefault(places, []).append(seconds / 3600)
    shown = "; ".join(
        f"{' to '.join(dict.fromkeys(map(number, (min(some), max(some)))))} on {places}"
        for places, some in hours.items()
    )
    return (
        f"Made with the code of {commits}. Hours of training a run, without evaluations, with others beside it: "
        f"{shown}."
    )


def place(description: Run) -> str:
    """The processor, and the GPU if there is one, that a run was made or continued on."""
    processor, gpu = description.get("processor") or "an unknown processor", description.get("gpu")
    return f"{processor} with {gpu}" if gpu else processor


def short(commit: str | None) -> str:
    """A commit as people name it, with the + of changes that were not committed."""
    return commit[:7] + "+" * commit.endswith("+") if commit else "an unknown commit"
