"""What runs with several seeds say: as numbers, in words and in tables."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from rl.evaluation import statistics

FEWEST = 3  # seeds that are worth an interval: of two, Student's is 13 standard errors wide
LEVEL = 0.05


def number(value, digits=2):
    """Three significant digits, without a minus of a plain hyphen; differences of nothing are 0.

    Args:
        value: the number.
        digits: after the point, of numbers below 10.
    """
    digits = digits if abs(value) < 10 else 1 if abs(value) < 100 else 0
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def text(values, estimated, digits=2):
    """Values of seeds [S] as text: an estimate with its interval; each of one or two, or the one that all have."""
    value, interval = estimated
    if len(values) < FEWEST:
        return "; ".join(number(value, digits) for value in values)
    if interval is None:
        return number(value, digits)
    return "{} [{}, {}]".format(*(number(one, digits) for one in (value, *interval)))


def level(values, digits=2):
    """Values of seeds [S] as text: the interquartile mean, or of few seeds the mean, as
    `rl.evaluation.statistics.estimate` makes it; empty where there are none.
    """
    values = [value for value in values if value is not None]
    return text(values, statistics.estimate(values, statistics.interquartile_mean), digits) if values else ""


class Difference(NamedTuple):
    """One thing minus another, of the seeds that have both.

    Attributes:
        values: tuple [S].
    """

    values: tuple

    @classmethod
    def between(cls, first, second, of):
        """Of runs, seed -> content; `of` is the figure of a content, or None where it has none."""
        pairs = [(of(first[seed]), of(second[seed])) for seed in sorted(first.keys() & second.keys())]
        return cls(tuple(one - other for one, other in pairs if None not in (one, other)))

    @property
    def compared(self):
        """The `rl.evaluation.statistics.Comparison`."""
        return statistics.compare(self.values, np.zeros(len(self.values)))

    @property
    def p(self):
        """The p-value of Student's paired test, two-sided; None of too few seeds.

        Where all differences are equal, t would be divided by 0: they are no difference at all, or the surest one.
        """
        if len(self.values) < FEWEST:
            return None
        if np.ptp(self.values) == 0:
            return 0.0 if self.values[0] else 1.0
        return float(stats.ttest_1samp(self.values, 0.0).pvalue)

    @property
    def improvement(self):
        """The share of seeds in which the first is higher, with Wilson's interval, as text; empty of too few."""
        if len(self.values) < FEWEST:
            return ""
        return "{:.2f} [{:.2f}, {:.2f}]".format(*map(float, self.compared.improvement))

    def told(self, digits=2):
        """Its mean with Student's interval, as text; empty of no seeds."""
        return text(self.values, self.compared.difference, digits) if self.values else ""

    def __str__(self):
        return self.told()


def holm(p_values):
    """p-values as Holm's correction raises them: all of them at once are wrong in `LEVEL` of cases at most.

    The i-th smallest of m, i = 0, 1, …, becomes (m − i) p, and at least as large as the one before it.
    """
    order = np.argsort(p_values)
    raised = np.empty(len(p_values))
    raised[order] = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * np.asarray(p_values)[order])
    return np.minimum(raised, 1.0)


def verdicts(differences):
    """Which differences are told from 0 by Student's test, with Holm's correction over all of them.

    Args:
        differences: name -> `Difference`; those without a p-value are left out.

    Returns:
        name -> 1 (told to be higher), −1 (lower) or 0 (not told)
    """
    known = {name: difference for name, difference in differences.items() if difference.p is not None}
    raised = holm([difference.p for difference in known.values()])
    return {
        name: int(np.sign(np.mean(difference.values))) if p < LEVEL else 0
        for (name, difference), p in zip(known.items(), raised, strict=True)
    }


def in_words(found, differences, titles, words=("better", "worse", "not told apart"), digits=2):
    """Verdicts as phrases: ["better: A (1.00 [0.50, 1.50])", "not told apart: B; C"].

    Args:
        found: as from `verdicts`, of the names wanted.
        differences: name -> `Difference`.
        titles: name -> how it is called.
        words: for what is higher, for what is lower, and for what is neither.
        digits: as for `number`.
    """
    parts = []
    for sign, word in zip((1, -1, 0), words, strict=True):
        members = [
            f"{titles[name]} ({differences[name].told(digits)})" if sign else titles[name]
            for name, verdict in found.items()
            if verdict == sign
        ]
        if members:
            parts.append(f"{word}: {'; '.join(members)}")
    return parts


def bullets(title, phrases):
    """A list in Markdown: list of lines, with an empty one at either end; nothing of no phrases."""
    return ["", title, "", *(f"- {phrase}" for phrase in phrases), ""] if phrases else [""]


def grid(head, rows):
    """A table in Markdown: list of lines, with an empty one at its end."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]
