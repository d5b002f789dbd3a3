"""An experiment's part of docs/results.md: what its runs are, how they compare, and the tables of it."""

from pathlib import Path

import numpy as np
from estimates import FEWEST, Difference, bullets, grid, in_words, level, number, verdicts
from evaluate import SWAPPED
from exploration import exploration

from rl.files import read_json

# Where methods are compared: after the one update that training is for, and after all that evaluation makes.
AFTER = {"after 1 update": 1, "after the last update": -1}


def load(row, folder):
    """The results of an experiment that are there: method -> seed -> content.

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


def after(content, updates=-1, kind="returns"):
    """A run's mean over test tasks after a number of updates."""
    return float(np.mean(content["test"][kind][updates]))


def difference(runs, baseline, updates):
    """A method's return after a number of updates minus the baseline's: a `Difference`."""
    return Difference.between(runs, baseline, lambda run: after(run, updates))


def comparisons(row, found):
    """Every method that was run against the baseline: (method, key of `AFTER`) -> `Difference`."""
    baseline = found.get(row.baseline, {})
    return {
        (method, when): difference(runs, baseline, updates)
        for when, updates in AFTER.items()
        for method, runs in found.items()
        if method != row.baseline
    }


def section(row, found, methods):
    """An experiment's part of docs/results.md: list of lines."""
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


def sentence(row, found, methods):
    """What is found, in words: the methods whose difference to the baseline is told apart from 0, and the others."""
    if row.baseline not in found:
        return "Found here: nothing yet; the baseline was not run."
    differences = comparisons(row, found)
    told = verdicts(differences)
    if not told:
        if len(row.seeds) < FEWEST:
            return f"Nothing is compared here: that takes {FEWEST} seeds. What the tables show of fewer is no finding."
        return f"Found here: nothing yet; a comparison takes {FEWEST} seeds."
    titles = {(method, when): methods[method].title for method, when in differences}
    lines = [f"Found here, compared with {methods[row.baseline].title}:", ""]
    for when in AFTER:
        of_then = {key: verdict for key, verdict in told.items() if key[1] == when}
        lines += [f"- {when}, {phrase}" for phrase in in_words(of_then, differences, titles)]
    return "\n".join(lines)


def returns(row, found, methods):
    """The table of returns, of the success rate where the environment tells it, and of steps: list of lines."""
    updates = len(next(iter(next(iter(found.values())).values()))["test"]["returns"])
    told = any("success" in run["test"] for runs in found.values() for run in runs.values())
    head = ["method", "seeds", *(f"return after {count}" for count in range(updates)), *["success rate"] * told]
    head += ["outer steps accepted", "of the last tenth"]
    rows = []
    for method in row.methods:
        if method not in found:
            rows.append([methods[method].title, "not run", *[""] * (len(head) - 2)])
            continue
        runs = found[method].values()
        cells = [methods[method].title, f"{len(runs)} of {len(row.seeds)}"]
        cells += [level([after(run, count) for run in runs]) for count in range(updates)]
        if told:
            cells.append(level([after(run, kind="success") for run in runs]))
        rows.append([*cells, *(level([accepted(run, share) for run in runs]) for share in (1, 0.1))])
    return grid(head, rows)


def accepted(run, share=1):
    """The share of a run's last outer steps that the line search accepted: the others leave the policy as it was.

    Args:
        run: its results.
        share: of its iterations, that are looked at; the last one always is.
    """
    steps = run["curves"]["kl"]
    return float(np.mean([bool(kl) for kl in steps[-max(1, round(share * len(steps))) :]]))


def compared(row, found, methods):
    """The table of differences to the baseline: list of lines."""
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


def checked(row, found, methods):
    """What was evaluated of the runs beside their returns, where it was: list of lines."""
    having = {method: {seed: run for seed, run in runs.items() if "checks" in run} for method, runs in found.items()}
    having = {method: runs for method, runs in having.items() if runs}
    missing = sum(len(runs) - len(having.get(method, {})) for method, runs in found.items())
    lines = representations(row, having, methods) + interventions(having, methods) if having else []
    return [*lines, f"Without representations and interventions: {missing} runs.", ""] if missing else lines


def representations(row, found, methods):
    """How alike tasks are represented, and what gates do: list of lines."""
    layers = list(next(iter(next(iter(found.values())).values()))["similarity"])

    def alike(layer, name):
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
    phrases = in_words(verdicts(last), last, titles, ("more alike", "less alike", "not told apart"))
    return [
        "Linear CKA between tasks after the last update (1: all tasks are represented alike), and what it would be of "
        "tasks whose representations have nothing to do with each other (the mean of permutations).",
        *bullets(f"Found in the last layer, compared with {methods[row.baseline].title}:", phrases),
        *grid(head, rows),
    ]


def interventions(found, methods):
    """What an adapted policy loses under interventions, paired by seed: list of lines."""
    names = list(dict.fromkeys(name for runs in found.values() for run in runs.values() for name in run["checks"]))

    def changed(runs, name):
        checked = [run for run in runs.values() if name in run["checks"]]
        return Difference(tuple(float(np.mean(run["checks"][name]["returns"][-1])) - after(run) for run in checked))

    rows, swapped = [], {}
    for method, runs in found.items():
        if any(SWAPPED in run["checks"] for run in runs.values()):
            swapped[method] = changed(runs, SWAPPED)
        changes = [str(changed(runs, name)) for name in names]
        rows.append([methods[method].title, level([after(run) for run in runs.values()]), *changes])
    titles = {method: methods[method].title for method in swapped}
    phrases = in_words(verdicts(swapped), swapped, titles, ("gains", "loses", "no loss is told"))
    return [
        "By how much an intervention changes the adapted policy's return after the last update, on the same tasks with "
        "the same random numbers.",
        *bullets(f"Found with the {SWAPPED}:", phrases),
        *grid(["method", "as it is", *names], rows),
    ]


def made(found):
    """What runs were made with: a line."""
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


def place(description):
    """Where a run was made, or continued: the processor and the GPU."""
    processor, gpu = description.get("processor") or "an unknown processor", description.get("gpu")
    return f"{processor} with {gpu}" if gpu else processor


def short(commit):
    """A commit as people name it, with the + of changes that were not committed."""
    return commit[:7] + "+" * commit.endswith("+") if commit else "an unknown commit"
