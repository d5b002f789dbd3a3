"""What the runs of an experiment were made and evaluated with, in words."""

from collections.abc import Collection

from measures import Found, Run

from rl.evaluation.comparisons import number


def made(found: Found) -> str:
    """What runs were made with."""
    runs = [run for kept in found.values() for run in kept.values()]
    # What a run was continued with counts as what it began with.
    later = [entry for run in runs for entry in run.get("continued", [])]
    hashes = [*(run["commit"] for run in runs), *(entry.get("git_commit") for entry in later)]
    commits = ", ".join(dict.fromkeys(map(short, hashes)))
    hours: dict[str, list[float]] = {}
    for run in runs:
        places = " and then ".join(dict.fromkeys(map(place, [run, *run.get("continued", [])])))
        seconds = run["iterations"] * (run["seconds"]["sampling"] + run["seconds"]["learning"])
        hours.setdefault(places, []).append(seconds / 3600)
    shown = "; ".join(
        f"{' to '.join(dict.fromkeys(map(number, (min(some), max(some)))))} on {places}"
        for places, some in hours.items()
    )
    tasks = {len(run["test"]["returns"][0]) for run in runs if "test" in run}
    episodes = {run["test_episodes"] for run in runs if "test_episodes" in run}
    evaluated = f"Evaluated on {in_order(tasks)} test tasks with {in_order(episodes)} episodes each. " * bool(episodes)
    return (
        f"{evaluated}Made with the code of {commits}. Hours of training of one run, without evaluations, while others "
        f"ran on the same machine: {shown}."
    )


def in_order(numbers: Collection[int]) -> str:
    """Whole numbers in words."""
    return " or ".join(map(str, sorted(numbers)))


def place(description: Run) -> str:
    """The processor, and the GPU if there is one, that a run was made or continued on."""
    processor, gpu = description.get("processor") or "an unknown processor", description.get("gpu")
    return f"{processor} with {gpu}" if gpu else processor


def short(commit: str | None) -> str:
    """A commit as people name it, with the + of changes that were not committed."""
    return commit[:7] + "+" * commit.endswith("+") if commit else "an unknown commit"
