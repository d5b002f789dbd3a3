"""results/ -> docs/results.md, its pages in docs/results/, docs/mechanism.md, their pictures, and README's results.

python studies/report.py
"""

import sys
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

import mechanism
import numpy as np
import pictures
import sections
import table
from estimates import Family, grid, secondary
from matplotlib.figure import Figure
from measures import MEASURES, Found, Methods, after, difference, load, primary
from PIL import Image
from table import Experiment, Table
from words import Figures

from rl.evaluation.comparisons import Difference, level, number
from rl.files import read_json, write_text
from rl.plots import style
from rl.run.interrupts import exit_status

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS, PAGES, FRONT = ROOT / "results", ROOT / "docs", ROOT / "README.md"
COMMANDS = PAGES / "experiments.md"
BEGIN, END = "<!-- results: written by studies/report.py -->", "<!-- end of results -->"
CAPTION = "Return after one update on the CT-graph and in 2D navigation, seed by seed"
# In the picture of docs/results.md, in this order, where they are among the primary endpoints.
SHOWN = ("ctgraph_d2", "ctgraph_d3", "ctgraph_d4", "navigation", "navigation_501")
# Gates that learn: the experiments that try several biases, and what is compared there.
GATES_TRIED_ON = ("ctgraph_d2", "navigation_bias", "half_cheetah_dir")
GATES_COMPARED = (
    ("nm_soft_1", "nm_soft"), ("nm_soft_2", "nm_soft"), ("nm_soft_3", "nm_soft"), ("nm_ste_1", "nm_ste"),
    ("nm_ste_2", "nm_ste"),
)  # fmt: skip
MATCHED = "cavia_matched"


def pages(found: Table, folder: Path = RESULTS) -> dict[str, str]:
    """The pages, by their paths below docs/."""
    rows, methods = found.experiments, found.methods
    kept = {name: load(row, folder) for name, row in rows.items()}
    primaries = endpoints(found, kept)
    own = [row.name for row in found.compared()]
    blocks = {
        "verdicts": verdicts(found, primaries),
        "others": others(found, kept, primaries),
        "picture": [f"![{CAPTION}](pictures/results.png)"] * bool(shown(found, kept)),
        "gates": gates(found, kept),
        "first_step": first_steps(methods, folder),
        "learning_signal": learning_signals(found, folder),
        "step_gain": step_gains(found, folder),
        "rest": [line for name, row in rows.items() if name not in own and kept[name] and not row.exact
                 for line in appended(row, kept[name], methods)],
        **mechanism.blocks(found, kept, Path(folder)),
    }  # fmt: skip
    figures = Figures(rows, kept, primaries, blocks)

    def words(part: str) -> list[str]:
        path = HERE / f"{part}.md"
        return [*figures.filled(path.read_text(encoding="utf-8")).splitlines(), ""] if path.is_file() else []

    written = {
        "results.md": words("results"),
        "mechanism.md": words("mechanism"),
        "results/appendix.md": words("appendix"),
    }
    for name in own:
        if kept[name]:
            page = sections.page(rows[name], kept[name], methods, primaries.get(name), words(name))
            written[f"results/{name}.md"] = page
    return {path: "\n".join(lines).rstrip("\n") + "\n" for path, lines in written.items()}


def endpoints(found: Table, kept: Mapping[str, Found]) -> dict[str, Family[str]]:
    """The family of the primary endpoint of each experiment that has one: the paper's experiments are one family, those
    that are not in the paper stand alone. Of rows that differ only in their length, the longest that was run counts.
    """
    rows = [row for row in found.compared() if row.proposed != row.baseline]
    apart = {row.name: primary(row, kept[row.name]) for row in rows}
    rows.sort(key=lambda row: (apart[row.name].p is not None, row.iterations))
    longest = {(row.options, row.nm_size, row.baseline, row.proposed, *row.seeds): row.name for row in rows}
    apart = {name: one for name, one in apart.items() if name in longest.values()}
    papers = Family({name: one for name, one in apart.items() if found.experiments[name].paper_iterations})
    return {name: papers if name in papers else Family({name: one}) for name, one in apart.items()}


def lengths(row: Experiment) -> str:
    """A row's iterations, and the paper's."""
    paper = f" / {row.paper_iterations}" if row.paper_iterations else " / none"
    return f"{row.iterations}{paper}"


def verdicts(found: Table, primaries: Mapping[str, Family[str]], front: bool = False) -> list[str]:
    """The table of primary endpoints, with the paper's claims; for the front page, of its experiments and without."""
    cells = []
    for name, family in primaries.items():
        row, seeds = found.experiments[name], len(family[name].values)
        if seeds and (row.paper_iterations or not front):
            title = row.title if front else f"[{row.title}](results/{name}.md)"
            claim = [] if front else [row.paper if row.paper_iterations else "none"]
            cells.append([title, sections.against(row, found.methods), family.text(name), family.shown_p(name),
                          str(seeds), lengths(row), *claim])  # fmt: skip
    head = ["experiment", "difference", "in return after 1 update", "p (Holm)", "seeds", "iterations (ours / paper)"]
    return grid([*head, *["the paper's claim"] * (not front)], cells) if cells else []


def others(found: Table, kept: Mapping[str, Found], primaries: Mapping[str, Family[str]]) -> list[str]:
    """Lines that name the experiments with a page that are not in the table, and those of which there is nothing."""
    rows, tabled = found.compared(), [name for name, family in primaries.items() if family[name].values]
    pages = [f"[{row.title}](results/{row.name}.md)" for row in rows if kept[row.name] and row.name not in tabled]
    names = [f"{row.title} ({row.iterations} iterations)" for row in rows if not kept[row.name]]
    lines = [f"Also run: {'; '.join(pages)}.", ""] * bool(pages)
    return [*lines, *[f"Not run: {'; '.join(names)}."] * bool(names)]


def appended(row: Experiment, found: Found, methods: Methods) -> list[str]:
    """An experiment's part of the appendix."""
    body = [f"#{line}" if line.startswith("#") else line for line in sections.body(row, found, methods)]
    return [f"## {row.title}", "", sections.asked(row), "", *body]


def shown(found: Table, kept: Mapping[str, Found]) -> list[tuple[Experiment, Found]]:
    """The experiments of the picture that have something to show."""
    primaries = endpoints(found, kept)
    names = [name for name in SHOWN if name in primaries and primaries[name][name].values]
    return [(found.experiments[name], kept[name]) for name in names]


def gates(found: Table, kept: Mapping[str, Found]) -> list[str]:
    """How far open gates that learn should start, in the experiments that tried it, each a family of tests."""
    titles = {name: method.title for name, method in found.methods.items()}
    tried = [
        (found.experiments[name], Family({
            pair: difference(kept[name], *pair, MEASURES["return_1"])
            for pair in GATES_COMPARED if all(method in kept[name] for method in pair)
        })) for name in GATES_TRIED_ON
    ]  # fmt: skip
    if not any(tests for _, tests in tried):
        return []
    head = ["return after 1 update", *(cell for row, _ in tried for cell in (row.title, "p"))]
    rows = [
        [f"{titles[one]}, minus {titles[other]}",
         *(cell for _, tests in tried for cell in (tests.text((one, other)), tests.shown_p((one, other))))]
        for one, other in GATES_COMPARED
    ]  # fmt: skip
    return [*secondary({row.title: tests for row, tests in tried}), *grid(head, rows)]


def first_steps(methods: Methods, folder: Path = RESULTS) -> list[str]:
    """What the first outer step gains (`studies/first_step.py`): a family on its own episodes, one on fresh ones."""
    path = Path(folder, "first_step.json")
    if not path.is_file():
        return []
    found = read_json(path)["methods"]
    matched, names = found[MATCHED]["seeds"], ("own", "fresh")
    tests = {
        name: Family({
            method: Difference.between(entry["seeds"], matched, itemgetter(name))
            for method, entry in found.items() if method != MATCHED
        }) for name in names
    }  # fmt: skip
    rows = []
    for method, entry in found.items():
        steps = entry["seeds"].values()
        row = [methods[method].title, f"{entry['parameters']:,}",
               f"{sum(step['accepted'] for step in steps)} of {len(steps)}"]  # fmt: skip
        for name in names:
            row += [level([step[name] for step in steps], digits=3), tests[name].text(method, digits=3),
                    tests[name].shown_p(method)]  # fmt: skip
        rows.append(row)
    head = ["method", "parameters", "steps taken"]
    for episodes in ("its own episodes", "fresh ones"):
        head += [f"gain on {episodes}", f"minus that of {methods[MATCHED].title}", "p"]
    families = {"gains on the step's own episodes": tests["own"], "gains on fresh ones": tests["fresh"]}
    return [*secondary(families), *grid(head, rows)]


def learning_signals(found: Table, folder: Path = RESULTS) -> list[str]:
    """What there is to learn from in Meta-World's episodes (`studies/learning_signal.py`)."""
    path = Path(folder, "learning_signal.json")
    if not path.is_file():
        return []
    rows = []
    for name, run in read_json(path).items():
        experiment, method, _ = name.split("/")
        title = f"{found.experiments[experiment].title}: {found.methods[method].title}"
        handled = "ML1Reach" not in found.experiments[experiment].options  # there the object plays no part
        for iteration, one in run["checkpoints"].items():
            cells = [" → ".join(number(value) for value in one[part]) for part in ("returns", "success", "explained")]
            moves = [number(value) if handled else "" for part in ("near", "moved") for value in one[part]]
            rows.append([title, iteration, *cells, *moves, number(one["signal"])])
            title = ""
    head = ["run", "iteration", "return, before → after", "success", "variance explained", "hand near, before", "after",
            "object moved, before", "after", "share of signal"]  # fmt: skip
    return grid(head, rows)


def step_gains(found: Table, folder: Path = RESULTS) -> list[str]:
    """What outer steps gain on the tasks that they are made from, and on others (`studies/step_gain.py`)."""
    path = Path(folder, "step_gain.json")
    if not path.is_file():
        return []
    trials: dict[str, list] = {}  # name -> the steps that were tried at a policy
    rows = []
    for name, run in read_json(path).items():
        _, method, seed = name.split("/")
        title = f"{found.methods[method].title}, seed {seed}"
        for iteration, one in run["checkpoints"].items():
            cells = [title, iteration, " → ".join(number(value) for value in one["returns"])]
            for trial in list(one)[1:]:
                trials[trial] = one[trial]
                cells += [
                    level([1000 * gained for gained in gains], digits=1) for gains in zip(*one[trial], strict=True)
                ]
            rows.append(cells)
            title = ""
    head = [title for trial, steps in trials.items()
            for title in (f"{trial} ({len(steps)} steps): its own tasks", "others")]  # fmt: skip
    return grid(["run", "iteration", "return, before → after", *head], rows)


def front(found: Table, folder: Path = RESULTS) -> list[str]:
    """README's results, with the table of primary endpoints."""
    kept = {row.name: load(row, folder) for row in found.compared()}
    primaries = endpoints(found, kept)
    figures = Figures(found.experiments, kept, primaries, {"verdicts": verdicts(found, primaries, front=True)})
    return figures.filled((HERE / "front.md").read_text(encoding="utf-8")).strip("\n").splitlines()


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


def draw(figure: Figure, name: str) -> None:
    """Write a figure to docs/pictures, as a PDF and as a PNG of 256 colours, which is a third as large."""
    for file in style.save(figure, PAGES / "pictures" / name):
        if file.suffix == ".png":
            with Image.open(file) as picture:
                few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(file, optimize=True)


def write(results: Path = RESULTS) -> None:
    """Write the pages, the pictures of what is there, and README's part and that of docs/experiments.md.

    Raises:
        UserError: results that cannot be read, or that are of other options than the table's.
    """
    found = table.read()
    for row in found.experiments.values():
        found.check(row, results)
    kept = {name: load(row, results) for name, row in found.experiments.items()}
    for name, row in found.experiments.items():
        if kept[name] and not row.exact:
            draw(pictures.learning(row, kept[name], found.methods), f"results_{name}")
    if mechanism.measured(kept):
        draw(mechanism.picture(kept), "mechanism")
    if some := shown(found, kept):
        draw(pictures.verdicts(some, found.methods), "results")
    for path, text in pages(found, results).items():
        write_text(PAGES / path, text)
    for path, lines in ((FRONT, front(found, results)), (COMMANDS, policies(results))):
        text = path.read_text(encoding="utf-8")
        if BEGIN in text:
            before, _, rest = text.partition(BEGIN)
            table_lines = "\n".join(lines).strip("\n")
            write_text(path, f"{before}{BEGIN}\n\n{table_lines}\n\n{END}{rest.partition(END)[2]}")


def main(results: Path = RESULTS) -> int:
    """Write everything, and turn errors into one line and an exit status."""
    return exit_status("report.py", lambda _: write(results))


if __name__ == "__main__":
    sys.exit(main())
