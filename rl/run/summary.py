"""What is said at a run's end, read from what it logged: a run that was resumed is judged as a whole."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rl.errors import UserError
from rl.evaluation import intervals, runs
from rl.evaluation.metric_names import metric_named
from rl.evaluation.references import read_reference

# Read at a run's end. Where the folder is not there (a copy of rl/ alone), nothing is compared.
REFERENCES = Path(__file__).resolve().parents[2] / "docs" / "reference_curves"
WINDOW = 5  # iterations that a comparison with a reference is the mean of
MANY_UNACCEPTED = 10  # outer steps in a row without an accepted one, of which people are warned
FEWEST = 10  # iterations that a test of adaptation needs
WHAT_MAY_HELP = (
    "more episodes (--fast-batch-size), more tasks (--meta-batch-size) or a smaller --fast-lr may help; where all "
    "returns are equal, there is nothing to learn from"
)


def summary(folder: Path) -> list[str]:
    """What there is to say of the run with a log folder, in lines. If its logs cannot be read, a line says so."""
    try:
        run = runs.read_run(folder)
        return [*last_evaluation(run), *unmoved(run), *adaptation(run), *comparison_with_references(run)]
    except UserError as error:
        return [f"no summary: {error}"]


def unaccepted(count: int) -> str:
    """That so many outer steps in a row were not accepted, in words."""
    return f"{count} outer steps in a row changed nothing, none was accepted: {WHAT_MAY_HELP}"


def last_evaluation(run: runs.Run) -> Iterator[str]:
    """Returns, and success rates if the environment reports success, of the last evaluation."""
    counts = range(run.config.num_test_steps + 1)
    iterations, _ = run.curve("evaluation_rew/avg_rew 0")
    last = run.progress.loc[iterations[-1]]
    returns = ", ".join(f"{last[f'evaluation_rew/avg_rew {count}']:.4g}" for count in counts)
    yield f"last evaluation (iteration {iterations[-1]}), after 0, 1, 2, … updates: return {returns}"
    if pd.notna(last.get("evaluation_success/any 0")):
        rates = ", ".join(f"{last[f'evaluation_success/any {count}']:.1%}" for count in counts)
        yield f"success rate (any step): {rates}"


def unmoved(run: runs.Run) -> Iterator[str]:
    """A line if the policy did not move, or stood still for long, or hardly moved at all."""
    name = run.config.outer_step
    accepted, divergences = run.curve(f"{name}/step_size")[1] > 0, run.progress[f"{name}/kl"]
    longest = max((len(list(row)) for moved, row in itertools.groupby(accepted) if not moved), default=0)
    if not accepted.any():
        yield f"the policy never moved: of {len(accepted)} outer steps none was accepted; {WHAT_MAY_HELP}"
    elif longest >= MANY_UNACCEPTED:
        yield unaccepted(longest)
    elif name == "trpo" and divergences.max() < run.config.max_kl / 100:
        yield (
            f"the policy hardly moved: a step's KL divergence was at most {divergences.max():.1e} nat, and "
            f"--max-kl allows {run.config.max_kl:g}"
        )


def adaptation(run: runs.Run) -> Iterator[str]:
    """A line if the last quarter of a run, of at least 10 iterations, shows no gain from the inner update.

    The gain is the mean over iterations of the return after the update minus that before it, of the same tasks, with
    its 95% interval.
    """
    before, after = (run.progress[f"running_returns/{name}_update"] for name in ("before", "after"))
    gains = (after - before).dropna().to_numpy()
    count = len(gains) // 4
    if count < FEWEST:
        return
    gain, low, high = intervals.mean(gains[-count:])
    if np.isnan(low):  # all gains are equal, and an interval has no width
        low = high = gain
    if low <= 0:
        words = "the inner update lowers the return" if high < 0 else "no adaptation seen"
        yield (
            f"{words}: over the last {count} iterations it changed the mean return by {gain:.3g}, 95% interval "
            f"[{low:.3g}, {high:.3g}]; another --fast-lr or more episodes (--fast-batch-size) may help"
        )


def comparison_with_references(run: runs.Run) -> Iterator[str]:
    """Lines that compare a run with the reference curve of the same environment, method and options, if there is one.

    Compared are the means of the last 5 iterations that both have, of fewer where there are fewer; iteration 0, before
    any training, is left out.
    """
    gate = run.config.nm_gate if run.config.neuromodulation else None
    for path in sorted(REFERENCES.glob("*.json")):
        reference = read_reference(path)
        alike = (run.environment, run.config.method) == (reference.environment, reference.method)
        if not alike or reference.nm_gate not in (None, gate) or not reference.options.items() <= run.options.items():
            continue
        for known, theirs in ((metric_named(str(name)), theirs) for name, theirs in reference.curves.items()):
            if known is None or known.tag not in run.progress:
                continue
            ours = run.progress[known.tag].dropna()
            shared = ours.index[ours.index > 0].intersection(theirs.index)[-WINDOW:]
            if len(shared):
                yield (
                    f"{known.label}, up to iteration {shared[-1]}: {ours[shared].mean():.4g}; "
                    f"reference {theirs[shared].mean():.4g} ({path.name})"
                )
