"""An experiment's page: what its runs are, how they compare, and the tables of it."""

from collections.abc import Collection, Sequence

import numpy as np
from estimates import Family, count, grid, p_value, secondary
from evaluate import FROZEN
from measures import (
    MEASURES,
    WINDOW,
    Found,
    Measure,
    Methods,
    Run,
    accepted,
    after,
    after_the_best,
    best_checkpoint,
    changed,
    difference,
    effect,
    episodes,
    reached,
    share_found,
    success,
)  # fmt: skip
from provenance import made
from table import Experiment

from rl.evaluation import intervals
from rl.evaluation.comparisons import LEVEL, level, number

ONCE, LAST = MEASURES["return_1"], MEASURES["return_last"]
PICTURES = "../pictures"  # from docs/results/


def page(
    row: Experiment, found: Found, methods: Methods, endpoint: Family[str] | None, words: Sequence[str] = ()
) -> list[str]:
    """The lines of an experiment's page.

    Args:
        row, found, methods: the experiment and the results that are there.
        endpoint: the family of its primary endpoint, if it has one.
        words: what is written by hand of this one.
    """
    return [
        f"# {row.title}",
        "",
        f"{asked(row)} All experiments: [results](../results.md). How to read the tables: [glossary](glossary.md).",
        "",
        *(verdict(row, methods, endpoint) if endpoint else []),
        *words,
        *body(row, found, methods, endpoint),
    ]


def body(row: Experiment, found: Found, methods: Methods, endpoint: Family[str] | None = None) -> list[str]:
    """The picture and the tables of an experiment; `endpoint` is the family of its primary endpoint, if it has one."""
    methods = labelled(row, found, methods)
    lines = [f"![{row.title}: learning curves]({PICTURES}/results_{row.name}.png)", ""]
    lines += [*returns(row, found, methods), *compared(row, found, methods, endpoint)]
    if row.milestone:
        lines += soon(row, found, methods)
    if row.best_checkpoint:
        lines += best(row, found, methods)
    lines += [*tasks_found(row, found, methods), *run_by_run(found, methods)]
    if row.checks:
        lines += checked(row, found, methods)
    return [*lines, f"{made(found)} {row.note}".strip(), ""]


def labelled(row: Experiment, found: Found, methods: Methods) -> Methods:
    """The methods, with titles that say where one was evaluated from another number of episodes than the baseline."""
    others = unlike(row.baseline, found)
    return {
        name: method._replace(title=f"{method.title} ({'/'.join(map(str, others[name]))} episodes)") if name in others
        else method for name, method in methods.items()
    }  # fmt: skip


def unlike(reference: str, found: Found) -> dict[str, list[int | None]]:
    """The methods that were not evaluated from as many episodes as a method, and from how many they were: from more,
    more tasks are found, whatever the policy.
    """
    return {
        method: sorted(episodes(runs)) for method, runs in found.items()
        if reference in found and episodes(runs) != episodes(found[reference])
    }  # fmt: skip


def asked(row: Experiment) -> str:
    """How long an experiment is, and what the paper claims or the experiment asks."""
    if row.paper_iterations:
        return f"{row.iterations} iterations (the paper: {row.paper_iterations}). The paper's claim: {row.paper}"
    return f"{row.iterations} iterations (not in the paper). {row.paper}"


def verdict(row: Experiment, methods: Methods, family: Family[str]) -> list[str]:
    """The primary endpoint in words."""
    apart, p = family[row.name], family.p.get(row.name)
    said = f"*Primary endpoint*: return after 1 update, {against(row, methods)}: {apart.text() or 'not run yet'}"
    if p is None:
        return [f"{said}. It is not tested: a test needs three pairs of seeds.", ""]
    word = "no significant difference" if p >= LEVEL else "better" if sum(apart.values) > 0 else "worse"
    over = "a single test" if len(family) == 1 else f"Holm's correction over {count(family.tests, 'experiment')}"
    return [f"{said}, {p_value(p)} ({over}): {word}.", ""]


def against(row: Experiment, methods: Methods) -> str:
    """The two methods of the primary endpoint."""
    return f"{methods[row.proposed].title}, minus {methods[row.baseline].title}"


def returns(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of returns and of outer steps; of success rates, if they say more than returns do; and of both with the
    rate of the inner update halved after the first, if that was evaluated.
    """
    every = [run for runs in found.values() for run in runs.values()]
    updates, rows = len(every[0]["test"]["returns"]), []
    for method in row.methods:
        runs = found.get(method, {}).values()
        cells = [f"{len(runs)} of {len(row.seeds)}" if runs else "not run", *levels(runs, "test", "returns")]
        cells += [level([accepted(run, share) for run in runs]) for share in (1, 0.1)]
        rows.append([methods[method].title, *cells, *[""] * (updates + 3 - len(cells))])
    counts = [f"return after {count}" for count in range(updates)]
    lines = ["## Returns", "", *grid(["method", "seeds", *counts, "outer steps accepted", "of the last tenth"], rows)]
    more = [("Halved rate", "halved", "returns"), ("Halved rate, success", "halved", "success")]
    if succeeds(found):
        more.insert(0, ("Success rates", "test", "success"))
    for title, part, kind in more:
        rows = [
            [methods[method].title, *cells]
            for method, runs in found.items() if (cells := levels(runs.values(), part, kind))
        ]  # fmt: skip
        if rows:
            lines += [f"## {title}", "", *grid(["method", *(f"after {count}" for count in range(updates))], rows)]
    return lines


def run_by_run(found: Found, methods: Methods) -> list[str]:
    """The table of each run's success rates with intervals over its test tasks, where they say more than returns do."""
    if not succeeds(found):
        return []
    rows = []
    for method, runs in found.items():
        for seed, run in ((seed, run) for seed, run in runs.items() if "success" in run["test"]):
            ends = zip(*intervals.rate(np.transpose(run["test"]["success"])), strict=True)
            cells = ["{} [{}, {}]".format(*map(number, map(float, each))) for each in ends]
            rows.append([methods[method].title, str(seed), *cells])
    words = "Each run's own success rate, with Wilson's 95% interval over its test tasks."
    head = ["method", "seed", *(f"after {count}" for count in range(len(rows[0]) - 2))]
    return ["## Success rates, run by run", "", words, "", *grid(head, rows)]


def succeeds(found: Found) -> bool:
    """Whether success rates say more than returns do."""
    having = [run for runs in found.values() for run in runs.values() if "success" in run["test"]]
    return any(abs(after(run, 1, "success") - after(run, 1)) > 0.05 for run in having)


def levels(runs: Collection[Run], part: str, kind: str) -> list[str]:
    """The level after each number of updates of the runs that have this part; empty if none has."""
    having = [run[part][kind] for run in runs if kind in run.get(part, {})]
    return [level([float(np.mean(tasks)) for tasks in column]) for column in zip(*having, strict=True)]


def family(row: Experiment, found: Found, measure: Measure, but: str = "") -> Family[str]:
    """Every method's measure minus the baseline's, of those that were evaluated alike; `but` is left out."""
    skipped = {row.baseline, but, *unlike(row.baseline, found)}
    return Family({
        method: difference(found, method, row.baseline, measure)
        for method in found if row.baseline in found and method not in skipped
    })  # fmt: skip


def changed_later(row: Experiment, found: Found) -> Family[str]:
    """Every method's return after the last update minus the baseline's, where it differs, in the digits shown, from
    that after one update: the same numbers are not tested twice.
    """
    once = family(row, found, ONCE)
    return Family({name: last for name, last in family(row, found, LAST).items() if str(last) != str(once[name])})


def rivals(row: Experiment, found: Found) -> Family[str]:
    """The proposed method's return after one update minus that of every method, evaluated alike, but the baseline."""
    skipped = {row.baseline, row.proposed, *unlike(row.proposed, found)}
    return Family({
        method: difference(found, row.proposed, method, ONCE)
        for method in found if row.proposed in found and method not in skipped
    })  # fmt: skip


def compared(row: Experiment, found: Found, methods: Methods, endpoint: Family[str] | None = None) -> list[str]:
    """The differences of returns: from the baseline after one update and after the last, and from the proposed method
    after one update. The primary endpoint is in none of these families; a row that has none leaves it untested.
    """
    others = unlike(row.baseline, found)
    apart = {
        method: difference(found, method, row.baseline, ONCE)
        for method in found if method != row.baseline and method not in others
    }  # fmt: skip
    if not any(one.values for one in apart.values()):
        return []
    once, last, later = family(row, found, ONCE, but=row.proposed), family(row, found, LAST), changed_later(row, found)
    ours = rivals(row, found)
    baseline, proposed = methods[row.baseline].title, methods[row.proposed].title
    head = [f"minus {baseline}", "after 1 update", "p", "seeds in which it is higher", "after the last update", "p",
            f"{proposed}, minus it: after 1 update", "p"]  # fmt: skip
    rows = []
    for method in apart:
        seeds = len(apart[method].values)
        text, p = once.text(method) or str(apart[method]), once.shown_p(method)
        if method == row.proposed and endpoint and row.name in endpoint.p:
            text, p = endpoint.text(row.name), f"{endpoint.shown_p(row.name)} (primary)"
        elif method == row.proposed and once.tests + last.tests:
            p = "not tested"
        wins = f"{apart[method].compared.better:g} of {seeds}" if seeds > 1 else ""
        rows.append([
            methods[method].title, text, p, wins,
            later.text(method) or str(last[method]), later.shown_p(method),
            ours.text(method), ours.shown_p(method),
        ])  # fmt: skip
    families = {"the other methods after 1 update": once, "differences after the last update": later,
                f"{proposed}, minus each of the other methods, after 1 update": ours}  # fmt: skip
    again = "A difference that is the same after the last update, to the digits shown, is not tested again."
    names = "; ".join(methods[method].title for method in others)
    left_out = (
        f"Not compared, because {baseline} was evaluated from another number of episodes "
        f"({'/'.join(map(str, episodes(found.get(row.baseline, {}))))}), and more of them find more: {names}."
    )
    return ["## Differences", "", *secondary(families), *[again, ""] * (later.tests < last.tests),
            *grid(head, rows), *[left_out, ""] * bool(others)]  # fmt: skip


def soon(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of how soon each run reaches the experiment's milestone."""
    rows, pace = [], row.pace or {}
    for method, runs in found.items():
        counts = [reached(run, row.milestone) for run in runs.values()]
        cells = ["; ".join("not" if one is None else f"{one * times:.0f}" for one in counts)
                 for times in (1, pace.get(method)) if times]  # fmt: skip
        rows.append([methods[method].title, *cells, *[""] * (1 + bool(pace) - len(cells))])
    on_idle_cores = (
        " Seconds are that many iterations on two idle cores, where the time of one was measured: "
        f"{'; '.join(f'{methods[method].title} {seconds:g} s' for method, seconds in pace.items())}."
    )
    return [
        f"## How soon {row.milestone:g} is reached",
        "",
        f"The iteration, seed by seed, at which the return after the update (in training, the mean of {WINDOW} "
        f"iterations) is as high for the first time.{on_idle_cores * bool(pace)}",
        "",
        *grid(["method", "iteration", *["seconds"] * bool(pace)], rows),
    ]


def best(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of best checkpoints beside the last."""
    columns = (ONCE, best_checkpoint, after_the_best)
    rows = [
        [methods[method].title, *(level([of(run) for run in runs.values()]) for of in columns)]
        for method, runs in found.items()
    ]
    return [
        "## The best checkpoint",
        "",
        "The paper's figures are of the best checkpoint of a run, all others on this page of the last. The published "
        "code saves the policy of every iteration and evaluates every tenth; its evaluation scripts name the best of "
        "those tenth ones. Below, the best is chosen as nearly as our files allow: of the policies after iterations "
        "0, 10, 20, …, by the return after 1 update on the training tasks that the next iteration logs.",
        "",
        "The best of many noisy values is biased upwards: part of it is the luck of one iteration. The last column has "
        "no such bias: the mean over the nine policies that follow the best one, which had no part in the choice.",
        "",
        *grid(["return after 1 update", "last policy, test tasks", "best tenth policy, training tasks",
               "the nine policies after it"], rows),
    ]  # fmt: skip


def tasks_found(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """The table of tasks that were found before the update, if the environment reports success."""
    if not all("success" in run["test"] for runs in found.values() for run in runs.values()):
        return []
    apart = family(row, found, share_found)
    rows = []
    for method, runs in found.items():
        cells = [methods[method].title, level([share_found(run) for run in runs.values()])]
        cells += [apart.text(method), apart.shown_p(method)]
        for of_found in (True, False):
            cells += [level([success(run, of_found, updates) for run in runs.values()]) for updates in (1, -1)]
        rows.append(cells)
    head = [
        "method", "tasks found", "minus the baseline's", "p", "their success rate after 1 update",
        "after the last update", "the others' after 1 update", "after the last update",
    ]  # fmt: skip
    return [
        "## Tasks found before the update",
        "",
        "A task is found if one of the episodes before the update, from which the update is made, succeeds.",
        "",
        *secondary({"tasks found, each method minus the baseline": apart}),
        *grid(head, rows),
    ]


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
    last = family(row, found, MEASURES["cka"])
    rows = []
    for method, runs in found.items():
        for layer in layers:
            entries = [run["similarity"][layer] for run in runs.values()]
            flips = [entry["flips_between_tasks"][-1] for entry in entries if entry.get("flips_between_tasks")]
            rows.append([
                methods[method].title, layer.removeprefix("layer"), level([entry["cka"] for entry in entries]),
                *([last.text(method), last.shown_p(method)] if layer == layers[-1] else ["", ""]),
                level([entry["null"] for entry in entries]), level([entry.get("constant_gates") for entry in entries]),
                level(flips),
            ])  # fmt: skip
    head = [
        "method", "layer", "CKA", "minus the baseline's", "p", "CKA of unrelated tasks",
        "units whose gate keeps its sign", "gates whose sign differs between two tasks",
    ]  # fmt: skip
    return [
        "## Representations",
        "",
        "Linear CKA between tasks after the last update (1: all tasks are represented alike), and what it would be of "
        "tasks whose representations have nothing to do with each other (the mean of permutations).",
        "",
        *secondary({"CKA of the last layer, each method minus the baseline": last}),
        *grid(head, rows),
    ]


def interventions(found: Found, methods: Methods) -> list[str]:
    """What an adapted policy loses under interventions, paired by seed."""
    names = list(dict.fromkeys(name for runs in found.values() for run in runs.values() for name in run["checks"]))
    effects = {(method, name): effect(runs, changed(name)) for method, runs in found.items() for name in names}
    frozen = Family({key: one for key, one in effects.items() if key[1] == FROZEN and one.values})
    rows = []
    for method, runs in found.items():
        cells = [methods[method].title, level([after(run) for run in runs.values()])]
        for name in names:
            cells.append(frozen.text((method, name)) or effects[method, name].text())
            cells += [frozen.shown_p((method, name))] * (name == FROZEN)
        rows.append(cells)
    head = [cell for name in names for cell in [name, *["p"] * (name == FROZEN)]]
    return [
        "## Interventions",
        "",
        "By how much an intervention changes the adapted policy's return after the last update, on the same tasks with "
        "the same random numbers. Gates that stay as before adaptation ask whether a policy adapts through its gates; "
        "gates of another task mislead it, whatever it adapts through.",
        "",
        *secondary({f"{FROZEN}, each method with gates, against itself as it is": frozen}),
        *grid(["method", "as it is", *head], rows),
    ]
