import dataclasses
import json
import shutil

import numpy as np
import pytest

from rl.config import parse_options
from rl.evaluation.runs import read_run
from rl.run import summary
from tests.support.documents import training_command
from tests.support.helpers import ROOT
from tests.support.progress import write_progress

NAVIGATION = training_command("2DNavigation-v0")
CURVES = {"running_returns/before_update": -40.0, "running_returns/after_update": -20.0, "trpo/step_size": 0.8,
          "trpo/kl": 0.009}  # fmt: skip


def logged(folder, line=NAVIGATION, iterations=20, **curves):
    """A run's log folder as main.py leaves it: its options, and curves: a number, or one for each iteration."""
    config = parse_options(line)
    folder.mkdir()
    described = dataclasses.asdict(config)
    if config.env_config_path:
        shutil.copy(ROOT / "rl" / config.env_config_path, folder)
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    curves = CURVES | {tag.replace("__", "/"): values for tag, values in curves.items()}
    written = {tag: values if isinstance(values, dict) else np.broadcast_to(values, iterations)
               for tag, values in curves.items()}  # fmt: skip
    for count in range(config.num_test_steps + 1):
        written[f"evaluation_rew/avg_rew {count}"] = {0: -101.0 - count, 10: -1.0 - count}
    write_progress(folder, written)
    return folder


def said(function, *arguments, **curves):
    return list(function(read_run(logged(*arguments, **curves))))


# --- references ---


def test_a_run_of_the_same_options_is_compared(tmp_path):
    # The reference's last five of iterations 0 to 19; the run's own are all alike.
    reference = json.loads((summary.REFERENCES / "2d_navigation_nm_hard.json").read_text(encoding="utf-8"))
    before, after = (np.mean(reference[f"{name}_update"][15:20]) for name in ("before", "after"))
    assert said(summary.comparison_with_references, tmp_path / "run") == [
        f"before the update, up to iteration 19: -40; reference {before:.4g} (2d_navigation_nm_hard.json)",
        f"after the update, up to iteration 19: -20; reference {after:.4g} (2d_navigation_nm_hard.json)",
    ]


def test_every_file_is_of_a_command_that_there_is(tmp_path):
    """The documented commands meet the two of the published code, a rerun of CAVIA's the others."""
    graph = training_command("./envs/ctgraph/ctgraph_d2.json")
    plain = ["--num-context-params", "5", "--fast-lr", "0.2"]
    cheetah = ["--env-name", "HalfCheetahDir-v1", "--num-context-params", "50", "--fast-lr", "10"]
    named = [said(summary.comparison_with_references, tmp_path / str(number), line, 60)
             for number, line in enumerate((NAVIGATION, graph, plain, cheetah))]  # fmt: skip
    files = {line.rpartition("(")[2].rstrip(")") for lines in named for line in lines}
    assert files == {path.name for path in summary.REFERENCES.glob("*.json")}


@pytest.mark.parametrize(
    "change",
    ["--fast-lr 0.4", "--hidden-size 64", "--num-layers 3", "--nm-size 5", "--nm-gate soft", "--nm-gate-bias 1",
     "--num-context-params 6", "--fast-batch-size 10", "--meta-batch-size 40", "--gamma 0.99", "--tau 0.9",
     "--nonlinearity tanh", "--first-order", "--max-kl 0.02", "--maml", "--env-name Bandit-K5-v0"],
)  # fmt: skip
def test_a_run_of_other_options_is_not_compared(change, tmp_path):
    assert said(summary.comparison_with_references, tmp_path / "run", [*NAVIGATION, *change.split()]) == []


@pytest.mark.parametrize("change", ["--seed 1", "--num-workers 1", "--num-batches 30", "--expname mine", "--quiet"])
def test_what_changes_no_result_or_is_chance_does_not_matter(change, tmp_path):
    assert len(said(summary.comparison_with_references, tmp_path / "run", [*NAVIGATION, *change.split()])) == 2


def test_iteration_0_alone_is_not_compared(tmp_path):
    plain = ["--num-context-params", "5", "--fast-lr", "0.2", "--num-test-steps", "1"]
    assert said(summary.comparison_with_references, tmp_path / "short", NAVIGATION, 1) == []
    # One reference has iterations 0, 25, 100, …; one the evaluations of every tenth, where the run logs 0 and 10.
    files = [f"({name}.json)" for name in ("2d_navigation_cavia", "2d_navigation_cavia_test")]
    evaluations = [f"test tasks, 0 updates, up to iteration 10: -1; reference -40.3 {files[1]}",
                   f"test tasks, 1 update, up to iteration 10: -2; reference -21.54 {files[1]}"]  # fmt: skip
    assert said(summary.comparison_with_references, tmp_path / "sparse", plain, 25) == evaluations
    line = f"after the update, up to iteration 25: -20; reference -19 {files[0]}"
    assert said(summary.comparison_with_references, tmp_path / "longer", plain, 26) == [line, *evaluations]


# --- policies that do not move ---


def test_a_policy_that_never_moved(tmp_path):
    (line,) = said(summary.unmoved, tmp_path / "run", iterations=3, trpo__step_size=0, trpo__kl=0)
    assert line.startswith("the policy never moved: of 3 outer steps none was accepted; ") and "--fast-lr" in line


@pytest.mark.parametrize("still, lines", [(9, 0), (10, 1), (12, 1)])
def test_a_policy_that_stood_still_for_long(tmp_path, still, lines):
    # Nine, ten or twelve in a row, and four others.
    steps = [0.8, *[0.0] * still, 0.8, *[0.0] * 4, 0.8]
    found = said(summary.unmoved, tmp_path / "run", iterations=len(steps), trpo__step_size=steps)
    assert [line.partition(":")[0] for line in found] == [
        f"{still} outer steps in a row changed nothing, none was accepted"
    ] * lines


def test_a_policy_that_hardly_moved(tmp_path):
    (line,) = said(summary.unmoved, tmp_path / "run", trpo__kl=2e-5)
    assert line.endswith("a step's KL divergence was at most 2.0e-05 nat, and --max-kl allows 0.01")
    # As it was told to.
    assert said(summary.unmoved, tmp_path / "slow", [*NAVIGATION, "--max-kl", "3e-5"], trpo__kl=2e-5) == []


# --- adaptation ---


def gains(values, count=40):
    """Returns before and after the update, whose last quarter gains `values`; the others gain 5."""
    before = -40 + np.sin(np.arange(count))  # tasks of an iteration are harder than those of another
    gained = np.full(count, 5.0)
    gained[-len(values) :] = values
    return {"running_returns__before_update": before, "running_returns__after_update": before + gained}


def test_no_adaptation_is_reported_where_the_interval_includes_0(tmp_path):
    # Ten gains of ±1, mean 0.2: s² = 10·0.96/9, half-width 2.2622·√(1.0667/10) = 0.739.
    (line,) = said(summary.adaptation, tmp_path / "run", iterations=40, **gains([1, -1] * 4 + [1, 1]))
    assert line.startswith("no adaptation seen: over the last 10 iterations it changed the mean return by 0.2, ")
    assert "95% interval [-0.539, 0.939]; another --fast-lr" in line


def test_adaptation_that_is_seen_is_not_reported(tmp_path):
    """A mean of 1 where the interval's half-width is 0.739."""
    assert said(summary.adaptation, tmp_path / "run", iterations=40, **gains([2, 0] * 4 + [2, 0])) == []
    assert said(summary.adaptation, tmp_path / "equal", iterations=40, **gains([1] * 10)) == []


def test_updates_that_do_nothing_or_harm_are_reported(tmp_path):
    (line,) = said(summary.adaptation, tmp_path / "nothing", iterations=40, **gains([0] * 10))
    assert line.startswith("no adaptation seen: ") and "by 0, 95% interval [0, 0]" in line
    (line,) = said(summary.adaptation, tmp_path / "harm", iterations=40, **gains([-2, -1] * 5))
    assert line.startswith("the inner update lowers the return: over the last 10 iterations ")


def test_a_short_run_is_not_judged(tmp_path):
    assert said(summary.adaptation, tmp_path / "run", iterations=39, **gains([0] * 39, 39)) == []


# --- all of it ---


def test_the_last_evaluation(tmp_path):
    line = [*NAVIGATION, "--num-test-steps", "2"]
    run = tmp_path / "run"
    assert said(summary.last_evaluation, run, line) == [
        "last evaluation (iteration 10), after 0, 1, 2, … updates: return -1, -2, -3"
    ]
    rates = {f"evaluation_success__any {count}": {0: 1.0, 10: count / 4} for count in range(3)}
    assert said(summary.last_evaluation, tmp_path / "success", line, **rates)[1:] == [
        "success rate (any step): 0.0%, 25.0%, 50.0%"
    ]


def test_the_summary_of_a_good_run_praises_nothing(tmp_path):
    words = summary.summary(logged(tmp_path / "run", iterations=60, **gains([5] * 15, 60)))
    assert [line.split(",")[0] for line in words] == [
        "last evaluation (iteration 10)", "before the update", "after the update"
    ]  # fmt: skip


def test_logs_that_cannot_be_read_cost_a_line(tmp_path):
    run = logged(tmp_path / "run")
    (run / "progress.csv").unlink()
    (line,) = summary.summary(run)
    assert line.startswith("no summary: ") and "progress.csv" in line
