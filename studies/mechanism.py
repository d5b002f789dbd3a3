"""The tables and the picture of docs/mechanism.md: what the gates buy on the CT-graph, from runs that differ in one
thing each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from estimates import Family, grid
from exact import MEASURES, lost
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from measures import Found, Run, accepted
from pictures import KINDS as KINDS_OF_METHODS
from provenance import made
from table import Table

from rl.config import parse_options
from rl.evaluation.comparisons import Difference, level, number
from rl.files import read_json
from rl.plots import style

TEN, FIVE, TEN_LONG, FIVE_LONG = "mechanism_d3", "mechanism_d3_five", "mechanism_d3_1001", "mechanism_d3_five_1001"


class Arm(NamedTuple):
    """A kind of run: what the page calls it, and its experiment and method in experiments.toml."""

    letter: str
    experiment: str
    method: str
    title: str


ARMS = (
    Arm("A", TEN, "cavia_matched", "plain, as many parameters"),
    Arm("B", TEN, "nm_hard", "hard gates"),
    Arm("E", TEN, "cavia_matched_kl0005", "plain, max-kl 0.0005"),
    Arm("E'", TEN, "nm_hard_kl0005", "hard gates, max-kl 0.0005"),
    Arm("C", TEN, "cavia_matched_explore", "plain, a fifth of the episodes explores"),
    Arm("D", FIVE, "nm_hard_explore", "hard gates, a fifth of the episodes explores"),
    Arm("F", FIVE, "nm_hard_blind", "hard gates that do not read φ"),
    Arm("H", FIVE, "cavia_matched_credit", "plain, credit for exploration"),
    Arm("I", FIVE, "nm_hard_credit", "hard gates, credit for exploration"),
    Arm("K", FIVE, "nm_hard_credit_loose", "hard gates, credit for exploration, pre-update-kl 0.2"),
    Arm("E2", FIVE, "cavia_matched_kl002", "plain, max-kl 0.002"),
    Arm("E2'", FIVE, "nm_hard_kl002", "hard gates, max-kl 0.002"),
    Arm("G", FIVE, "cavia", "plain, 300 units"),
    Arm("J", FIVE, "nm_hard_kl05", "hard gates, max-kl 0.05"),
)
# Arms that were still rising at 401 iterations, run on, and hard gates as published to compare them with: a letter with
# a dagger is the arm of 1001.
LONGER = (
    Arm("B†", FIVE_LONG, "nm_hard", "hard gates, 1001 iterations"),
    Arm("E†", TEN_LONG, "cavia_matched_kl0005", "plain, max-kl 0.0005, 1001 iterations"),
    Arm("E'†", TEN_LONG, "nm_hard_kl0005", "hard gates, max-kl 0.0005, 1001 iterations"),
    Arm("E2'†", FIVE_LONG, "nm_hard_kl002", "hard gates, max-kl 0.002, 1001 iterations"),
)
EVERY = (*ARMS, *LONGER)
# (title, arms that are added, arms that are subtracted): the differences that Holm's correction covers.
CONTRASTS = (
    ("hard gates (B − A)", "B", "A"),
    ("exploration, plain (C − A)", "C", "A"),
    ("interaction (B − A) − (D − C)", "BC", "AD"),
    ("small step, plain (E − A)", "E", "A"),
    ("small step, hard gates (E' − B)", ["E'"], "B"),
    ("credit, plain (H − A)", "H", "A"),
    ("credit, hard gates (I − B)", "I", "B"),
)
# Those that ask what does as well as hard gates, and whether gates must read φ: a family of their own.
SECONDARY = (
    ("small step, plain, against hard gates (E − B)", "E", "B"),
    ("exploration, plain, against hard gates (C − B)", "C", "B"),
    ("credit, plain, against hard gates (H − B)", "H", "B"),
    ("large step, hard gates (J − B)", "J", "B"),
    ("large step, hard gates, against plain as published (J − A)", "J", "A"),
    ("gates that do not read φ, against those that do (F − B)", "F", "B"),
    ("gates that do not read φ, against none (F − A)", "F", "A"),
)
# Those of the arm that was added last, when one run of it had been seen, and a prediction that was long left untested.
ADDED = (
    ("a smooth step as short, plain, against hard gates (E2 − B)", ["E2"], "B"),
    ("credit, hard gates, with the looser bound (K − I)", "K", "I"),
    ("credit with the looser bound, hard gates (K − B)", "K", "B"),
)
# What 600 more iterations add: declared when three seeds of each had run, four of E'† and E2'†, none of B†.
MORE = (
    ("hard gates (B† − B)", ["B†"], "B"),
    ("small step, plain (E† − E)", ["E†"], "E"),
    ("small step, hard gates (E'† − E')", ["E'†"], ["E'"]),
    ("max-kl 0.002, hard gates (E2'† − E2')", ["E2'†"], ["E2'"]),
    ("small step, plain, against hard gates (E† − B†)", ["E†"], ["B†"]),
)
# The arms of the picture: a row each for plain policies and hard gates, coloured by what is changed.
KINDS = (
    "as published", "max-kl 0.002", "max-kl 0.0005", "a fifth explores", "credit for exploration", "gates blind to φ",
    "max-kl 0.05",
)  # fmt: skip
DRAWN = {"plain": ["A", "E2", "E", "C", "H"], "hard gates": ["B", "E2'", "E'", "D", "I", "F", "J"]}
# Why a trial is refused, as studies/line_search.py names it.
REASONS = ("KL", "surrogate", "surrogate and KL")
MARKERS = style.MARKERS[len(KINDS_OF_METHODS) :]  # no look stands for a method in the other pictures
HEADINGS = ("success on its own episodes", "coverage", "success after a visit handed over")

Contrast = tuple[str, Sequence[str], Sequence[str]]
Runs = dict[int, Run]  # seed -> results


def runs(arm: Arm, kept: Mapping[str, Found]) -> Runs:
    """The results of an arm that are there."""
    return kept[arm.experiment].get(arm.method, {})


def measured(kept: Mapping[str, Found]) -> bool:
    """Whether there is anything to show."""
    return any(runs(arm, kept) for arm in ARMS)


def blocks(found: Table, kept: Mapping[str, Found], folder: Path) -> dict[str, list[str]]:
    """The tables, by the names that the page has for them; empty where there is nothing to show.

    Args:
        folder: results/.
    """
    tables = {
        "measures": measures(found, kept),
        "contrasts": contrasts(kept, CONTRASTS),
        "rivals": contrasts(kept, SECONDARY),
        "added": contrasts(kept, ADDED),
        "more": contrasts(kept, MORE),
        "steps": steps(found, kept),
        "searches": searches(folder / "line_search.json"),
        "made": [made({arm.letter: runs(arm, kept) for arm in EVERY})],
    }
    return tables if measured(kept) else {name: [] for name in tables}


def searches(path: Path) -> list[str]:
    """The table of why line searches refuse trials (`studies/line_search.py`): each of its seeds."""
    if not path.is_file():
        return []
    content, titles = read_json(path), {arm.method: (arm.letter, arm.title) for arm in ARMS}
    by_method: dict[str, list[dict[str, Any]]] = {}
    for name, one in content.items():
        if "/" in name:
            by_method.setdefault(name.partition("/")[0], []).append(one)
    rows = []
    for method, seeds in by_method.items():
        counts = [[one["refused"].get(reason, 0) for reason in REASONS] for one in seeds]
        cells = ["; ".join(str(sum(of_seed)) for of_seed in counts)]
        cells += [number(sum(of_reason) / max(np.sum(counts), 1)) for of_reason in zip(*counts, strict=True)]
        for term in range(2):
            cells.append("; ".join(number(one["short"][term], 4) for one in seeds if term < len(one["short"])))
        rows.append([*titles[method], *cells, number(seeds[0]["smooth"], 4)])
    head = ["", "arm", "refused trials", "for their KL", "for their surrogate", "for both",
            "KL of a tenth of the step, after the update", "before it", "of a smooth policy"]  # fmt: skip
    return grid(head, rows)


def measures(found: Table, kept: Mapping[str, Found]) -> list[str]:
    """The table of measures of the last policies, and of what became of the leaves."""
    rows = []
    for arm in EVERY:
        results = [run["exact"] for run in runs(arm, kept).values()]
        cells = [level([result[measured][-1] for result in results]) for measured in MEASURES]
        fates = [_fates(results, measured) for measured in ("coverage", "handed")]
        seeds = f"{len(results)} of {len(found.experiments[arm.experiment].seeds)}"
        rows.append([arm.letter, arm.title, seeds, *cells, *fates])
    return grid(["", "arm", "seeds", *MEASURES.values(), "leaves not covered", "leaves not adapted to"], rows)


def _fates(results: Sequence[Mapping[str, Any]], measured: str) -> str:
    """What becomes of a run's leaves, the mean over runs, as text: never reached, lost again (last had, the median)."""
    leaves = [(leaf, run["checkpoints"]) for run in results for leaf in np.transpose(run["leaves"][measured])]
    if not leaves:
        return ""
    never = sum(max(leaf) < 0.5 for leaf, _ in leaves) / len(results)
    ends = [end for leaf, checkpoints in leaves if (end := lost(leaf, checkpoints)) is not None]
    return f"{never:.1f}; {len(ends) / len(results):.1f}" + (f" ({np.median(ends):.0f})" if ends else "")


def tested(kept: Mapping[str, Found], wanted: Sequence[Contrast]) -> Family[str]:
    """Some differences of the primary measure, paired by seed."""
    values = {
        arm.letter: {seed: run["exact"]["own"][-1] for seed, run in runs(arm, kept).items()} for arm in EVERY
    }  # fmt: skip
    differences = {}
    for title, added, taken in wanted:
        seeds = set.intersection(*(set(values[letter]) for letter in (*added, *taken)))
        differences[title] = Difference(tuple(
            sum(values[letter][seed] for letter in added) - sum(values[letter][seed] for letter in taken)
            for seed in sorted(seeds)
        ))  # fmt: skip
    return Family(differences)


def contrasts(kept: Mapping[str, Found], wanted: Sequence[Contrast]) -> list[str]:
    """The table of `tested`."""
    family = tested(kept, wanted)
    rows = [
        [title, str(len(difference.values)), family.text(title), family.shown_p(title) or "not tested"]
        for title, difference in family.items()
    ]
    return grid(["difference in success after one update", "pairs", "mean", "p (Holm)"], rows)


def steps(found: Table, kept: Mapping[str, Found]) -> list[str]:
    """The table of outer steps."""
    rows = []
    for arm in EVERY:
        taken = [run["exact"]["steps"] for run in runs(arm, kept).values()]
        if taken:
            bound = parse_options(found.options(arm.experiment, arm.method)).max_kl
            cells = [level([step["kl"] for step in taken], 4), level([step["part"] for step in taken])]
            cells.append(level([bound * step["square"] for step in taken], 4))
            cells += [level([accepted(run, share) for run in runs(arm, kept).values()]) for share in (1, 0.1)]
            rows.append([arm.letter, arm.title, f"{bound:g}", *cells])
    head = ["", "arm", "max-kl", "KL of an outer step", "accepted fraction of the full step", "max-kl × fraction²",
            "steps accepted", "of the last tenth"]  # fmt: skip
    return grid(head, rows)


@style.printed
def picture(kept: Mapping[str, Found]) -> Figure:
    """The measures over the iterations, a column each: a thick line is the mean of an arm's seeds, dotted over the
    iterations between the last two, of which no policy was measured.
    """
    by_letter = {arm.letter: arm for arm in ARMS}
    figure, axes = style.panels(len(DRAWN), len(MEASURES), height=2.0, width=2.4, sharex=True, sharey=True)
    for panels, (title, arms) in zip(axes, DRAWN.items(), strict=True):
        for panel, measured in zip(panels, MEASURES, strict=True):
            for place, letter in enumerate(arms):
                results = [run["exact"] for run in runs(by_letter[letter], kept).values()]
                colour, marker = (*style.COLOURS, style.BLACK)[place], MARKERS[place]
                for run in results:
                    panel.plot(run["checkpoints"][:-1], run[measured][:-1], color=colour, linewidth=0.4, alpha=0.5)
                if results:
                    mean, at = np.mean([run[measured] for run in results], axis=0), results[0]["checkpoints"]
                    letters = ", ".join(arms[place] for arms in DRAWN.values() if place < len(arms))
                    panel.plot(at[:-1], mean[:-1], color=colour, linewidth=1.8, marker=marker, markersize=4,
                               markevery=(place, 7), label=f"{KINDS[place]} ({letters})")  # fmt: skip
                    panel.plot(at[-2:], mean[-2:], ":", color=colour, linewidth=1.8, marker=marker, markersize=4,
                               markevery=[1])  # fmt: skip
        panels[0].set_ylabel(title)
    for panel, heading in zip(axes[0], HEADINGS, strict=True):
        panel.set_title(heading)
    for panel in axes[-1]:
        panel.set_xlabel("iteration")
    style.legend_below(figure, Line2D([], [], color=style.GREY, linewidth=0.4, label="one seed; thick: their mean"))
    return figure
