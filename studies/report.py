"""results/ -> docs/results.md, its pictures, and README's table.

python studies/report.py
"""

import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
import pictures
import table
from estimates import bullets, grid, in_words
from sections import AFTER, Methods, after, comparisons, difference, load, section
from table import Experiment

from rl.evaluation.comparisons import UNCLEAR, Difference, level, number, verdicts
from rl.files import read_json, write_text
from rl.plots import style
from rl.run.interrupts import exit_status

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS, PAGE, PICTURES, FRONT = ROOT / "results", ROOT / "docs/results.md", ROOT / "docs/pictures", ROOT / "README.md"
BEGIN, END = "<!-- results: written by studies/report.py -->", "<!-- end of results -->"
# Gates that learn: the experiments that try several kinds and biases, and what is compared there.
GATES_TRIED_ON = ("ctgraph_d2", "navigation_bias", "ctgraph_d3", "half_cheetah_dir")
GATES_COMPARED = (
    ("nm_ste", "nm_hard"), ("nm_ste", "nm_soft_2"), ("nm_soft_1", "nm_soft"), ("nm_soft_2", "nm_soft"),
    ("nm_soft_3", "nm_soft"), ("nm_soft_3", "nm_soft_1"), ("nm_ste_1", "nm_ste"), ("nm_ste_2", "nm_ste"),
)  # fmt: skip
MATCHED = "cavia_matched"
# Where methods differ in what they find before the update.
EXPLORED = ("ctgraph_d2", "ctgraph_d3", "ctgraph_d4")


def words(part: str) -> list[str]:
    """What is written by hand: the lines of a file beside this one."""
    return (HERE / f"{part}.md").read_text(encoding="utf-8").splitlines()


def page(rows: Sequence[Experiment], methods: Methods, folder: Path = RESULTS) -> str:
    """docs/results.md as text."""
    kept = {row.name: load(row, folder) for row in rows}
    lines = [*words("introduction"), "", *summary(rows, methods, folder)]
    if any(kept.get(name) for name in EXPLORED):
        lines += [*words("exploration"), ""]
    lines += gates(rows, methods, folder)
    for row in rows:
        lines += section(row, kept[row.name], methods)
    return "\n".join(lines).rstrip("\n") + "\n"


def summary(rows: Sequence[Experiment], methods: Methods, folder: Path = RESULTS) -> list[str]:
    """The summary of docs/results.md: one line for each method of each experiment."""
    cells = []
    for row in rows:
        found = load(row, folder)
        if not found:
            cells.append([row.title, "not run", "", "", "", ""])
        differences = comparisons(row, found)
        for method, runs in found.items():
            line = [row.title, methods[method].title]
            for when, updates in AFTER.items():
                against = "the baseline" if method == row.baseline else str(differences[method, when])
                line += [level([after(run, updates) for run in runs.values()]), against]
            cells.append(line)
    return grid(["experiment", "method", *(name for when in AFTER for name in (f"return {when}", "difference"))], cells)


def gates(rows: Sequence[Experiment], methods: Methods, folder: Path = RESULTS) -> list[str]:
    """Gates that learn, by kind and initial bias, in the experiments that tried them."""
    tried = [(row, load(row, folder)) for row in rows if row.name in GATES_TRIED_ON]
    rows = [
        [f"{methods[one].title}, minus {methods[other].title}",
         *(str(difference(found.get(one, {}), found.get(other, {}), -1)) for _, found in tried)]
        for one, other in GATES_COMPARED
    ]  # fmt: skip
    if not any(cell for row in rows for cell in row[1:]):
        return []
    table_of_pairs = grid(["return after the last update", *(row.title for row, _ in tried)], rows)
    return [*words("gates"), "", *table_of_pairs, *first_steps(methods, folder)]


def first_steps(methods: Methods, folder: Path = RESULTS) -> list[str]:
    """What the first outer step gains (`studies/first_step.py`)."""
    path = Path(folder, "first_step.json")
    if not path.is_file():
        return []
    found = read_json(path)["methods"]
    rows, lines = [], []
    for method, entry in found.items():
        steps = entry["seeds"].values()
        cells = [f"{sum(step['accepted'] for step in steps)} of {len(steps)}"]
        cells += [level([step[name] for step in steps], digits=3) for name in ("own", "fresh")]
        rows.append([methods[method].title, f"{entry['parameters']:,}", *cells])
    matched = found[MATCHED]["seeds"]
    titles = {method: methods[method].title for method in found}
    for name, episodes in (("own", "its own episodes"), ("fresh", "fresh ones")):
        apart = {
            method: Difference.between(entry["seeds"], matched, itemgetter(name))
            for method, entry in found.items()
            if method != MATCHED
        }
        phrases = in_words(verdicts(apart), apart, titles, ("more", "less", UNCLEAR), digits=3)
        lines += bullets(f"On {episodes} it gains, compared with {methods[MATCHED].title},", phrases)[:-1]
    return [
        *words("first_step"),
        *lines,
        "",
        *grid(["method", "parameters", "steps taken", "gain on its own episodes", "gain on fresh ones"], rows),
    ]


def front(rows: Sequence[Experiment], methods: Methods, folder: Path = RESULTS) -> list[str]:
    """The table of README: one line for each experiment that was run, with what the paper proposes for it, minus the
    baseline; bold where Student's paired test is significant with Holm's correction over the whole table.
    """
    kept = {row.name: load(row, folder) for row in rows}
    differences = {
        (row.name, when): difference(
            kept[row.name].get(row.proposed, {}), kept[row.name].get(row.baseline, {}), updates
        )
        for row in rows
        for when, updates in AFTER.items()
    }
    significant = verdicts(differences)
    cells, missing = [], []
    for row in rows:
        pairs = [(row.name, when) for when in AFTER]
        seeds = len(differences[pairs[0]].values)
        if not seeds:
            missing.append(row.title)
            continue
        shown = [f"**{differences[pair]}**" if significant.get(pair) else str(differences[pair]) for pair in pairs]
        title = f"{methods[row.proposed].title}, minus {methods[row.baseline].title}"
        cells.append([row.title, title, *shown, str(seeds), f"{row.iterations} of {row.paper_iterations}"])
    lines = grid(["experiment", "difference in return", *AFTER, "seeds", "iterations, of the paper's"], cells)
    return [*lines, f"Not run at the paper's length: {'; '.join(missing)}.", ""] if missing else lines


def policies(results: Path = RESULTS) -> list[str]:
    """The table of docs/experiments.md: the policies that are kept, beside all seeds of their method."""
    rows = []
    for folder in sorted({path.parents[1] for path in results.glob("*/*/*/policy.pt")}):
        found = {int(one.stem): after(read_json(one), 1) for one in folder.glob("[0-9]*.json")}
        kept = [f"{seed}: {number(found[seed])}" for seed in sorted(found) if (folder / str(seed)).is_dir()]
        values = list(found.values())
        middle, low, high = map(number, (float(np.median(values)), min(values), max(values)))
        name = str(folder.relative_to(results))
        rows.append([f"`{name}`", ", ".join(kept), f"{middle} ({low} to {high} of {len(values)})"])
    return grid(["folder", "kept seed: its return", "median of all seeds"], rows)


def write(results: Path = RESULTS) -> None:
    """Write the page, the pictures of what is there, and README's part.

    Raises:
        UserError: results that cannot be read, or that are of other options than the table's.
    """
    found = table.read()
    rows = list(found.experiments.values())
    for row in rows:
        found.check(row, results)
    kept = [(row, load(row, results)) for row in rows]
    for row, runs in kept:
        if runs:
            style.save(pictures.learning(row, runs, found.methods), PICTURES / f"results_{row.name}")
    explored = [(row, runs) for row, runs in kept if row.name in EXPLORED]
    if any(runs for _, runs in explored):
        style.save(pictures.exploration(explored, found.methods), PICTURES / "results_exploration")
    write_text(PAGE, page(rows, found.methods, results))
    text = FRONT.read_text(encoding="utf-8")
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        lines = "\n".join(front(found.of_the_paper(), found.methods, results))
        write_text(FRONT, f"{before}{BEGIN}\n\n{lines}\n{END}{rest.partition(END)[2]}")


def main(results: Path = RESULTS) -> int:
    """Write everything, and turn errors into one line and an exit status."""
    return exit_status("report.py", lambda _: write(results))


if __name__ == "__main__":
    sys.exit(main())
