"""Groups of seeds compared: levels and paired differences as numbers and as text, Student's test, Holm's correction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from rl.evaluation import statistics

FEWEST = 3  # seeds that are worth an interval: of two, Student's is 13 standard errors wide
LEVEL = 0.05


def number(value: float, digits: int = 2) -> str:
    """Three significant digits (`digits` after the point below 10), with a proper minus, but none before 0."""
    digits = digits if abs(value) < 10 else 1 if abs(value) < 100 else 0
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def text(values: Sequence[float], estimated: statistics.Estimate, digits: int = 2) -> str:
    """Values of seeds as text: an estimate with its interval; each of one or two, or the one that all have."""
    value, interval = estimated
    if len(values) < FEWEST:
        return "; ".join(number(value, digits) for value in values)
    if interval is None:
        return number(float(value), digits)
    return "{} [{}, {}]".format(*(number(float(one), digits) for one in (value, *interval)))


def level(
    values: Sequence[float | None], digits: int = 2, statistic: statistics.Statistic = statistics.interquartile_mean
) -> str:
    """Values of seeds as text: the statistic, or of few seeds the mean, with its interval."""
    known = [value for value in values if value is not None]
    return text(known, statistics.estimate(known, statistic), digits) if known else ""


class Difference(NamedTuple):
    """One thing minus another, of the seeds that have both."""

    values: tuple[float, ...]

    @classmethod
    def between(
        cls, first: Mapping[Any, Any], second: Mapping[Any, Any], of: Callable[[Any], float | None] = float
    ) -> "Difference":
        """Of runs, seed -> content; `of` is the number taken from a content, None if it has none."""
        pairs = [(of(first[seed]), of(second[seed])) for seed in sorted(first.keys() & second.keys())]
        return cls(tuple(one - other for one, other in pairs if one is not None and other is not None))

    @property
    def compared(self) -> statistics.Comparison:
        """The differences compared with 0."""
        return statistics.compare(self.values, np.zeros(len(self.values)))

    @property
    def p(self) -> float | None:
        """The p-value of Student's paired test, two-sided; None of too few seeds.

        If all differences are equal, t would be divided by 0: they are no difference at all, or the surest one.
        """
        if len(self.values) < FEWEST:
            return None
        if np.ptp(self.values) == 0:
            return 0.0 if self.values[0] else 1.0
        return float(stats.ttest_1samp(self.values, 0.0).pvalue)

    def text(self, digits: int = 2) -> str:
        """Its mean with Student's interval; empty of no seeds."""
        return text(self.values, self.compared.difference, digits) if self.values else ""

    def __str__(self) -> str:
        return self.text()


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " m"]:
    """p-values with Holm's correction: the chance that any of them misleads is `LEVEL` at most.

    The i-th smallest of m, i = 0, 1, …, becomes (m − i) p, and at least as large as the one before it.
    """
    order = np.argsort(p_values)
    raised = np.empty(len(p_values))
    raised[order] = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * np.asarray(p_values)[order])
    return np.minimum(raised, 1.0)


def adjusted(differences: Mapping[Any, Difference]) -> dict[Any, float]:
    """The p-values of Student's paired test with Holm's correction over all differences; those without one are left
    out.
    """
    known = {name: difference.p for name, difference in differences.items() if difference.p is not None}
    return dict(zip(known, holm(list(known.values())).tolist(), strict=True))
