"""results/ -> docs/results.md, its pictures, and README's table.

python experiments/report.py
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import numpy as np
import table

from rl.evaluation import statistics
from rl.files import write_text
from rl.plots import curves, style

RESULTS, PAGE, PICTURES, FRONT = ROOT / "results", ROOT / "docs/results.md", ROOT / "docs/pictures", ROOT / "README.md"
BEGIN, END = "<!-- results: written by experiments/report.py -->", "<!-- end of results -->"
WINDOW = 10  # iterations that a point of a learning curve is the mean of
LINES = ["-"] * 6 + ["--"] * 6
GATES_TRIED_ON = ("ctgraph_d2", "navigation_bias")


class Estimate(NamedTuple):
    """A number and its 95% interval, None where the seeds allow none."""

    value: float
    interval: tuple | None

    def __str__(self):
        if self.interval is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.interval[0])}, {number(self.interval[1])}]"


def number(value):
    """Three significant digits, without a minus of a plain hyphen; differences of nothing are 0."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def estimate(values, statistic=statistics.interquartile_mean):
    """The `Estimate` of a statistic over seeds [S], as `rl.evaluation.statistics.estimate` makes it."""
    value, interval = statistics.estimate(values, statistic)
    return Estimate(float(value), interval and (float(interval[0]), float(interval[1])))


def load(row, folder=RESULTS):
    """The results of an experiment that are there: method -> seed -> content."""
    found = {}
    for method in row.methods:
        runs = {seed: Path(folder, row.name, method, f"{seed}.json") for seed in row.seeds}
        runs = {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in runs.items() if path.is_file()}
        if runs:
            found[method] = runs
    return found


def words(part):
    """What is said of the experiments, written by hand: the text of a file beside this one."""
    return (HERE / f"{part}.md").read_text(encoding="utf-8")


def after(content, updates=-1, kind="returns"):
    """A run's mean over test tasks after a number of updates."""
    return float(np.mean(content["test"][kind][updates]))


def difference(runs, baseline):
    """The return after the last update of a method minus the baseline's, over the seeds that both have: (`Estimate`,
    share of seeds where it is better), or None where that has no interval.
    """
    shared = sorted(runs.keys() & baseline.keys())
    if len(shared) < 2:
        return None
    found = statistics.compare(*([after(kind[seed]) for seed in shared] for kind in (runs, baseline)))
    value, interval = found.difference
    if interval is None:
        return None
    return Estimate(float(value), (float(interval[0]), float(interval[1]))), float(found.improvement.mean)


def sentence(row, found, methods):
    """What is found, in words: the methods whose difference to the baseline is told apart from 0, and the others."""
    if row.baseline not in found:
        return "Found here: nothing yet; the baseline was not run."
    verdicts = {"better": [], "worse": [], "not told apart from it": []}
    for method, runs in found.items():
        compared = method != row.baseline and difference(runs, found[row.baseline])
        if compared:
            low, high = compared[0].interval
            verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart from it"
            verdicts[verdict].append(f"{methods[method].title} ({compared[0]})")
    told = "; ".join(f"{verdict}: {', '.join(titles)}" for verdict, titles in verdicts.items() if titles)
    if not told:
        return "Found here: nothing yet that could be compared with an interval."
    return f"Found here, by the return after the last update, compared with {methods[row.baseline].title}: {told}."


def section(row, found, methods):
    """An experiment's part of docs/results.md: list of lines."""
    paper = f"the paper: {row.paper_iterations}" if row.paper_iterations else "not in the paper"
    lines = [
        f"## {row.title}",
        "",
        f"{row.iterations} iterations ({paper}). {row.paper}",
        "",
        sentence(row, found, methods),
        "",
    ]
    if not found:
        return [*lines, "Not run.", ""]
    updates = len(next(iter(next(iter(found.values())).values()))["test"]["returns"])
    lines += returns(row, found, methods, updates)
    if row.checks:
        lines += checks(found, methods)
    return [*lines, f"![{row.title}: learning curves](pictures/results_{row.name}.png)", ""]


def returns(row, found, methods, updates):
    """The table of returns, and of the success rate where the environment tells it: list of lines."""
    told = any("success" in run["test"] for runs in found.values() for run in runs.values())
    head = ["method", "seeds", *(f"return after {count}" for count in range(updates))]
    head += ["success rate"] * told + [f"minus {methods[row.baseline].title}", "better in"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for method in row.methods:
        if method not in found:
            lines.append(f"| {methods[method].title} | not run |" + " |" * (len(head) - 2))
            continue
        runs = found[method]
        cells = [methods[method].title, f"{len(runs)} of {len(row.seeds)}" if len(runs) < len(row.seeds) else len(runs)]
        cells += [estimate([after(run, count) for run in runs.values()]) for count in range(updates)]
        if told:
            cells.append(estimate([after(run, kind="success") for run in runs.values()]))
        compared = method != row.baseline and row.baseline in found and difference(runs, found[row.baseline])
        cells += [compared[0], f"{compared[1]:.0%} of seeds"] if compared else ["", ""]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def checks(found, methods):
    """Representations and causal checks: list of lines."""
    lines = [
        "Linear CKA between tasks after the last update (1: all tasks are represented alike) and its permutation null:",
        "",
    ]
    lines += [
        "| method | layer | CKA | null | gates that never change | gates that differ between two tasks |",
        "|---|---|---|---|---|---|",
    ]
    for method, runs in found.items():
        for layer in next(iter(runs.values()))["similarity"]:
            layers = [run["similarity"][layer] for run in runs.values()]
            cells = [over_seeds([entry[name] for entry in layers]) for name in ("cka", "null")]
            cells += [over_seeds([entry[name] for entry in layers if name in entry]) for name in ("constant_gates",)]
            cells.append(
                over_seeds([entry["flips_between_tasks"][-1] for entry in layers if entry.get("flips_between_tasks")])
            )
            lines.append(f"| {methods[method].title} | {layer.removeprefix('layer')} | {' | '.join(cells)} |")
    lines += ["", "Return after the last update where the adapted policy acts under an intervention:", ""]
    names = list(dict.fromkeys(name for runs in found.values() for run in runs.values() for name in run["checks"]))
    lines += [f"| method | as it is | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for method, runs in found.items():
        cells = [str(estimate([after(run) for run in runs.values()]))]
        for name in names:
            cells.append(
                over_seeds(
                    [
                        float(np.mean(run["checks"][name]["returns"][-1]))
                        for run in runs.values()
                        if name in run["checks"]
                    ]
                )
            )
        lines.append(f"| {methods[method].title} | {' | '.join(cells)} |")
    return [*lines, ""]


def over_seeds(values):
    """An `Estimate` over seeds as text; empty where there are no values."""
    values = [value for value in values if value is not None]
    return str(estimate(values)) if values else ""


def page(rows, methods, folder=RESULTS):
    """docs/results.md as text."""
    lines = [words("introduction"), *summary(rows, methods, folder), "", *gates(rows, methods, folder)]
    for row in rows:
        lines += section(row, load(row, folder), methods)
    return "\n".join(lines).rstrip("\n") + "\n"


def gates(rows, methods, folder=RESULTS):
    """Gates that learn, by kind and initial bias, in the experiments that tried them: list of lines."""
    tried = [(row, load(row, folder)) for row in rows if row.name in GATES_TRIED_ON]
    names = [
        name
        for name in sorted(methods)
        if name.startswith(("nm_soft", "nm_ste")) and any(name in found for _, found in tried)
    ]
    if not names:
        return []
    lines = [
        *words("gates").splitlines(),
        "",
        "What the experiments here say of kind and bias:",
        "",
        f"| return after the last update | {' | '.join(row.title for row, _ in tried)} |",
        "|---|" + "---|" * len(tried),
    ]
    for name in names:
        cells = [
            f"{estimate([after(run) for run in found[name].values()])}; seeds: {len(found[name])}"
            if name in found
            else ""
            for _, found in tried
        ]
        lines.append(f"| {methods[name].title} | {' | '.join(cells)} |")
    return [*lines, ""]


def summary(rows, methods, folder=RESULTS):
    """The summary of docs/results.md: one line for each method of each experiment."""
    lines = ["| experiment | method | return after the last update | minus the baseline |", "|---|---|---|---|"]
    for row in rows:
        found = load(row, folder)
        if not found:
            lines.append(f"| {row.title} | not run | | |")
            continue
        for method, runs in found.items():
            compared = method != row.baseline and row.baseline in found and difference(runs, found[row.baseline])
            last = estimate([after(run) for run in runs.values()])
            against = str(compared[0]) if compared else "the baseline" if method == row.baseline else ""
            lines.append(f"| {row.title} | {methods[method].title} | {last} | {against} |")
    return lines


def front(rows, methods, folder=RESULTS):
    """The table of README: one line for each experiment, with the method that gains most over the baseline."""
    lines = [
        "| experiment | methods run | "
        "return after the last update: the largest difference to the baseline [95% interval] | seeds |",
        "|---|---|---|---|",
    ]
    for row in rows:
        found = load(row, folder)
        baseline = found.get(row.baseline, {})
        compared = {method: difference(runs, baseline) for method, runs in found.items() if method != row.baseline}
        compared = {method: pair[0] for method, pair in compared.items() if pair}
        cells = [str(len(found)) if found else "not run", "", ""]
        if compared:
            best = max(compared, key=lambda method: compared[method].value)
            shared = len(found[best].keys() & baseline.keys())
            title = methods[row.baseline].title
            cells[1:] = [f"{methods[best].title}, minus {title}: {compared[best]}", str(shared)]
        elif found:
            cells[1] = "none with an interval yet"
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


@style.printed
def draw(row, found, methods):
    """Learning curves of an experiment: before and after the update, a line a method with its interval over seeds."""
    figure, axes = style.panels(1, 2, sharey=True)
    for panel, (name, title) in zip(
        axes[0], (("before_update", "before the update"), ("after_update", "after the update")), strict=True
    ):
        for (method, runs), colour, line in zip(found.items(), style.colours(), LINES, strict=False):
            length = min(len(run["curves"][name]) for run in runs.values())
            values = np.array([curves.smoothed(run["curves"][name][:length], WINDOW) for run in runs.values()])
            middle, interval = statistics.estimate(values, statistics.interquartile_mean)
            panel.plot(middle, line, color=colour, label=f"{methods[method].title}; seeds: {len(runs)}")
            # Of fewer seeds the intervals would hide the curves.
            if len(values) >= statistics.FEWEST:
                panel.fill_between(range(length), *interval, color=colour, alpha=0.15, linewidth=0)
        panel.set(xlabel="iteration", title=title)
    axes[0, 0].set_ylabel("return")
    figure.suptitle(row.title)
    style.legend_below(figure)
    return figure


def write(results=RESULTS):
    """Write the page, the pictures of what is there, and README's part."""
    found = table.read()
    rows = list(found.experiments.values())
    for row in rows:
        runs = load(row, results)
        if runs:
            style.save(draw(row, runs, found.methods), PICTURES / f"results_{row.name}")
    write_text(PAGE, page(rows, found.methods, results))
    text = FRONT.read_text(encoding="utf-8")
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        lines = "\n".join(front([row for row in rows if row.paper_iterations], found.methods, results))
        write_text(FRONT, f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    write()
