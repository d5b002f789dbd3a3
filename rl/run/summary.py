"""What is said at a run's end, read from what it logged: a run that was resumed is judged as a whole."""

import itertools
from pathlib import Path

import numpy as np

from rl.errors import UserError
from rl.evaluation import intervals, runs
from rl.evaluation.references import read_reference

# Read at a run's end. Where the folder is not there (a copy of rl/ alone), nothing is compared.
REFERENCES = Path(__file__).resolve().parents[2] / "docs" / "reference_curves"
WINDOW = 5  # iterations that a comparison with a reference is the mean of
MANY_UNACCEPTED = 10  # outer steps in a row without an accepted one, of which people are warned
FEWEST = 10  # iterations that a judgement of adaptation needs
WHAT_MAY_HELP = (
    "more episodes (--fast-batch-size), more tasks (--meta-batch-size) or a smaller --fast-lr may help; where all "
    "returns are equal, there is nothing to learn from"
)


def summary(folder):
    """What there is to say of a run, a list of lines. Logs that cannot be read cost these lines and nothing else.

    Args:
        folder: the run's log folder.
    """
    try:
        run = runs.read_run(folder)
        return [*last_evaluation(run), *unmoved(run), *adaptation(run), *comparison_with_references(run)]
    except UserError as error:
        return [f"no summary: {error}"]


def unaccepted(count):
    """That so many outer steps in a row were not accepted, in words."""
    return f"{count} outer steps in a row changed nothing, none was accepted: {WHAT_MAY_HELP}"


def last_evaluation(run):
    """Returns, and where the environment tells them success rates, of the last evaluation."""
    counts = range(run.config.num_test_steps + 1)
    iterations, _ = run.curve("evaluation_rew/avg_rew_0")

    def last(tag, form):
        return ", ".join(f"{run.curve(f'{tag}_{count}')[1][-1]:{form}}" for count in counts)

    yield (
        f"last evaluation (iteration {iterations[-1]}), after 0, 1, 2, … updates: "
        f"return {last('evaluation_rew/avg_rew', '.4g')}"
    )
    told, _ = run.curves.get("evaluation_success/any_0", (iterations[:0], None))
    if iterations[-1] in told:
        yield f"success rate (any step): {last('evaluation_success/any', '.1%')}"


def unmoved(run):
    """A line where the policy did not move, or stood still for long, or hardly moved at all."""
    accepted, divergences = run.curve("trpo/step_size")[1] > 0, run.curve("trpo/kl")[1]
    longest = max((len(list(row)) for moved, row in itertools.groupby(accepted) if not moved), default=0)
    if not accepted.any():
        yield f"the policy never moved: of {len(accepted)} outer steps none was accepted; {WHAT_MAY_HELP}"
    elif longest >= MANY_UNACCEPTED:
        yield unaccepted(longest)
    elif divergences.max() < run.config.max_kl / 100:
        yield (
            f"the policy hardly moved: a step's KL divergence was at most {divergences.max():.1e} nat, and "
            f"--max-kl allows {run.config.max_kl:g}"
        )


def adaptation(run):
    """A line where the last quarter of a run, of at least 10 iterations, shows no gain from the inner update.

    What is held against 0 is the mean over iterations of the return after the update minus that before it, of the same
    tasks, with its 95% interval.
    """
    (iterations, before), (others, after) = (
        run.curve(f"running_returns/{name}_update") for name in ("before", "after")
    )
    count = len(iterations) // 4
    if count < FEWEST or not np.array_equal(iterations, others):
        return
    gain, low, high = intervals.mean((after - before)[-count:])
    if np.isnan(low):  # all gains are equal, and an interval has no width
        low = high = gain
    if low <= 0:
        words = "the inner update lowers the return" if high < 0 else "no adaptation seen"
        yield (
            f"{words}: over the last {count} iterations it changed the mean return by {gain:.3g}, 95% interval "
            f"[{low:.3g}, {high:.3g}]; another --fast-lr or more episodes (--fast-batch-size) may help"
        )


def comparison_with_references(run):
    """Lines that compare a run with the reference curve of the same environment, method and options; else nothing.

    Compared are the means of the last 5 iterations that both have, of fewer where there are fewer; iteration 0, before
    any training, is left out.
    """
    gate = run.config.nm_gate if run.config.neuromodulation else None
    for path in sorted(REFERENCES.glob("*.json")):
        reference = read_reference(path)
        alike = (run.environment, run.config.method) == (reference.environment, reference.method)
        if not alike or reference.nm_gate not in (None, gate) or not reference.options.items() <= run.options.items():
            continue
        for name, theirs in reference.curves.items():
            iterations, ours = run.curve(f"running_returns/{name}")
            shared, mine, other = np.intersect1d(iterations[iterations > 0], reference.iterations, return_indices=True)
            if shared.size:
                yield (
                    f"{name.replace('_', ' ')}, up to iteration {shared[-1]}: "
                    f"{ours[iterations > 0][mine][-WINDOW:].mean():.4g}; "
                    f"reference {theirs[other][-WINDOW:].mean():.4g} ({path.name})"
                )
