"""Learning curves of made-up runs with known numbers."""

import csv
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rl import plot
from rl.config import Config
from rl.errors import UserError
from rl.evaluation import runs
from rl.evaluation.comparisons import Difference
from rl.evaluation.references import read_reference
from rl.plots import curves, style
from rl.policies.elementwise import GATES
from tests.support.helpers import ROOT
from tests.support.progress import write_progress

LAST_TENTH = "mean of the last tenth"
AFTER = "running_returns/after_update"


def made_up_run(folder, seed, values, sampled=(), **options):
    """A run's folder whose `after_update` has `values` in iterations 0, 1, …; `sampled` their (steps, seconds)."""
    folder.mkdir()
    config = dataclasses.asdict(Config(seed=seed, **options))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    logged = {AFTER: values, "evaluation_rew/avg_rew 2": [10 * value for value in values]}
    if sampled:
        logged["time/sampling"] = [seconds for _, seconds in sampled]
        logged["time/env_steps_per_second"] = [steps / seconds for steps, seconds in sampled]
    write_progress(folder, logged)
    return folder


def read_curves(folders, *names):
    """The curves of some metrics of made-up runs, in groups."""
    groups = runs.grouped([runs.read_run(folder) for folder in folders], ())
    return [
        curves.curve("environment", label, members, curves.metric(name))
        for label, members in groups.items()
        for name in names
    ]


@pytest.fixture
def two_groups(tmp_path):
    """Seeds 1, 2, 3 of plain CAVIA and 2, 3, 4 of first-order CAVIA, ten iterations of one value each."""
    plain = [made_up_run(tmp_path / f"plain{seed}", seed, [value] * 10) for seed, value in ((1, 0), (2, 1), (3, 5))]
    first = [
        made_up_run(tmp_path / f"first{seed}", seed, [value] * 10, first_order=True)
        for seed, value in ((2, 0), (3, 6), (4, 9))
    ]
    return plain + first


def table(path):
    with open(f"{path}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_groups_means_and_intervals(two_groups, tmp_path):
    _, lines = curves.curves(two_groups, tmp_path / "out")
    rows = [row for row in table(tmp_path / "out") if row["iteration"] == "9"]
    assert [(row["group"], row["seeds"], float(row["value"])) for row in rows] == [
        ("plain CAVIA", "3", 2.0), ("plain CAVIA, first order", "3", 5.0)
    ]  # fmt: skip
    # Student's interval of 0, 1, 5: standard deviation √7, t(0.975, 2) = 4.303, half-width 4.303·√(7/3) = 6.573. Of 0,
    # 6, 9: √21, 4.303·√7 = 11.384.
    ends = [float(row[end]) for row in rows for end in ("low_95", "high_95")]
    assert ends == pytest.approx([2 - 6.573, 2 + 6.573, 5 - 11.384, 5 + 11.384], abs=2e-3)
    # Seeds 2 and 3 are shared: 1 − 0 and 5 − 6; mean 0, standard deviation √2, t(0.975, 1) = 12.71: ±12.71. Better in
    # one of two: Wilson's interval of ½ is ½ ± ½·z/√(n + z²) with z² = 3.841, 0.095 to 0.905.
    (line,) = (line for line in lines if "a share of" in line)
    assert "no significant difference; plain CAVIA, first order minus plain CAVIA: 0 [-12.71, 12.71]" in line
    assert "better in 1 of 2" in line
    assert "(a share of 0.50 [0.09, 0.91])" in line


def test_the_comparison_says_which_group_is_better(tmp_path):
    """Three seeds, all of them worse: not "0.00 [0.00, 0.00]" but who is better, and how sure three seeds make it."""
    folders = [
        made_up_run(tmp_path / f"{order}{seed}", seed, [seed + shift] * 10, first_order=order)
        for order, shift in ((False, 0.0), (True, 4.0))
        for seed in (1, 2, 3)
    ]
    lines = curves.curves(folders, tmp_path / "out")[1]
    (line,) = (line for line in lines if LAST_TENTH in line)
    # All three differ by 4 exactly: no interval can be given.
    assert "plain CAVIA, first order minus plain CAVIA: 4; the seeds give no interval (3 shared)" in line
    found = Difference((-4.0, -4.5, -4.5))
    # Differences −4, −4.5, −4.5: mean −4.333, standard deviation 0.2887, half-width 4.303·0.2887/√3 = 0.717. Wilson of
    # 0 of 3: 0 to z²/(n + z²) = 0.562.
    # t = 4.333/(0.2887/√3) = 26, p = 1 − t/√(2 + t²) = 0.0015.
    words = "B is better than A by 4.333 [3.616, 5.05], in 3 of 3 seeds (a share of 1.00 [0.44, 1.00])"
    assert curves.in_words("A", "B", found, found.p) == f"{words}, p = 0.0015"
    # The same interval is no finding where many comparisons are made.
    assert "no significant difference; A minus B: -4.333 [-5.05, -3.616]" in curves.in_words("A", "B", found, 0.06)


def test_environment_steps_as_the_x_axis(tmp_path):
    """Iterations of 1,000 and 3,000 steps: at iteration 1, 4,000 were sampled."""
    folder = made_up_run(tmp_path / "run", 1, [1.0, 2.0], sampled=[(1000, 0.3), (3000, 0.7)])
    curves.curves([folder], tmp_path / "out", x="steps")
    assert [row["steps"] for row in table(tmp_path / "out")] == ["1000", "4000"]
    (panel,) = curves.draw(read_curves([folder], "after_update"), x="steps").axes
    assert panel.lines[0].get_xdata().tolist() == [1000, 4000] and panel.get_xlabel().startswith("environment steps")
    bare = made_up_run(tmp_path / "bare", 1, [1.0])
    with pytest.raises(UserError, match="has no curve time/env_steps_per_second"):
        curves.curves([bare], tmp_path / "out", x="steps")


def test_few_seeds_are_drawn_and_many_have_a_band(two_groups, tmp_path):
    # Seeds from 0 to 9 and a tenth of that; Student's interval of the second group, up to 5 + 11.4, is not drawn.
    (panel,) = curves.draw(read_curves(two_groups, "after_update")).axes
    assert panel.get_ylim() == pytest.approx((-0.9, 9.9)) and not panel.collections
    assert sum(line.get_linewidth() == 0.5 for line in panel.lines) == 6
    five = [made_up_run(tmp_path / f"five{seed}", seed, [float(seed)] * 10) for seed in range(5)]
    (panel,) = curves.draw(read_curves(five, "after_update")).axes
    assert len(panel.collections) == 1 and len(panel.lines) == 1


def test_no_two_groups_are_alike():
    """Nor do they differ in colour alone; kinds of lines come again neither."""
    looks = [style.look(number) for number in range(40)]
    assert len({look.marker for look in looks}) == 40
    assert len({str(style.kind_of_line(number)) for number in range(40)}) == 40


def test_every_group_is_compared_with_the_first(two_groups, tmp_path):
    third = [
        made_up_run(tmp_path / f"third{seed}", seed, [value] * 10, gamma=0.9)
        for seed, value in ((1, 1), (2, 3), (3, 6))
    ]
    _, lines = curves.curves([*two_groups, *third], tmp_path / "out")
    # Differences 1, 2, 1 have t = 4 and p = 1 − 4/√18 = 0.057; of two shared seeds there is no test.
    (line,) = (line for line in lines if "plain CAVIA, gamma 0.9 minus plain CAVIA, gamma 0.95: 1.333" in line)
    assert "p = 0.057" in line and sum(LAST_TENTH in line for line in lines) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_iteration_shows_its_interval(tmp_path, count):
    folders = [made_up_run(tmp_path / str(seed), seed, [float(seed)] * count) for seed in range(5)]
    (panel,) = curves.draw(read_curves(folders, "after_update")).axes
    (drawn,) = panel.collections
    low, high = panel.get_xlim()
    assert type(drawn).__name__ == ("LineCollection" if count == 1 else "FillBetweenPolyCollection")
    assert high - low >= 1 and panel.get_title() == "environment\nplain CAVIA"


def test_labels_title_size_and_limits(two_groups, tmp_path):
    line = ["curves", *map(str, two_groups), "--label", "one", "the other", "--output", str(tmp_path / "out")]
    frame = ["--title", "A title", "--size", "4", "3", "--ylim", "-2", "12"]
    assert plot.main([*line, *frame]) == 0
    assert {row["group"] for row in table(tmp_path / "out")} == {"one", "the other"}
    with Image.open(tmp_path / "out.png") as image:
        assert image.width * 3 == image.height * 4 == 12 * style._SETTINGS["savefig.dpi"]
    frame = style.Frame("A title", None, (-2.0, 12.0))
    (panel,) = curves.draw(read_curves(two_groups, "after_update"), frame=frame).axes
    assert panel.get_title() == "A title" and panel.get_ylim() == (-2.0, 12.0)
    for wrong, words in (
        (["--label", "one"], "--label: expected a name for each of 2 groups"), (["--label", "a", "a"], "--label"),
        (["--title", r"cost $\foo$"], "--title .*Unknown symbol"), (["--label", "$x$ and $^$"], "--label"),
        (["--ylim", "3", "1"], "--ylim"), (["--ylim", "0", "inf"], "finite"), (["--size", "0", "3"], "1 to 50 inches"),
        (["--size", "1e999", "3"], "finite"), (["--smooth", "9" * 30], "--smooth"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            plot.draw(plot.parse([*line[: 1 + len(two_groups)], *wrong]))


def test_one_legend_names_groups_and_kinds_of_line(two_groups):
    found = read_curves(two_groups, "after_update", "test/2")
    figure = curves.draw([*found, *(one._replace(environment="another") for one in found)])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "plain CAVIA (3 seeds)", "plain CAVIA, first order (3 seeds)", "one seed", "after the update",
        "test tasks, 2 updates",
    ]  # fmt: skip
    assert all(panel.get_legend() is None for panel in figure.axes)


@pytest.mark.parametrize("gate", GATES)
def test_methods_are_named_in_words(gate, tmp_path):
    config = Config(neuromodulation=True, nm_gate=gate, nm_gate_bias=2.0)
    assert runs.Folder(tmp_path, config, seed=1).method == f"neuromodulated CAVIA, {GATES[gate].label} gates, bias 2"
    assert all(row.label for row in GATES.values())
    assert runs.Folder(tmp_path, Config(maml=True), seed=1).method == "plain MAML"


def test_what_changes_no_result_makes_no_group(tmp_path):
    folders = [
        made_up_run(tmp_path / "a", 1, [1.0], num_workers=1, expname="a", logdir="x"),
        made_up_run(tmp_path / "b", 2, [3.0], num_workers=2, expname="b", logdir="y"),
    ]
    curves.curves(folders, tmp_path / "out")
    (row,) = table(tmp_path / "out")
    assert (row["group"], row["seeds"], row["value"]) == ("plain CAVIA", "2", "2.0")


def test_group_by_never_pools_what_differs_in_more_than_the_seed(two_groups, tmp_path):
    for group_by in (("method",), ("method", "first_order"), ()):
        curves.curves(two_groups, tmp_path / "out", group_by=group_by)
        found = {(row["group"], row["seeds"]) for row in table(tmp_path / "out")}
        assert found == {("plain CAVIA", "3"), ("plain CAVIA, first order", "3")}
    # It separates what changes no result, too.
    named = made_up_run(tmp_path / "named", 1, [0.0], expname="again")
    curves.curves([*two_groups[:3], named], tmp_path / "out", group_by=("expname",))
    assert {row["group"] for row in table(tmp_path / "out")} == {"plain CAVIA, expname ", "plain CAVIA, expname again"}
    with pytest.raises(UserError, match="is of a run with seed 1"):
        curves.curves([*two_groups[:3], named], tmp_path / "out", group_by=("method",))


def test_interquartile_mean(tmp_path):
    """Of 0, 1, 2, 3, 100 the lowest and the highest are left out; four seeds have their mean."""
    values = enumerate((0.0, 1.0, 2.0, 3.0, 100.0))
    folders = [made_up_run(tmp_path / str(seed), seed, [value]) for seed, value in values]
    for count, expected in ((5, 2.0), (4, 1.5)):
        curves.curves(folders[:count], tmp_path / "out", statistic="iqm")
        (row,) = table(tmp_path / "out")
        assert float(row["value"]) == expected


@pytest.mark.parametrize(
    "counts, said",
    [
        ((5, 9), "interquartile mean"),
        ((5, 1), "interquartile mean"),
        ((5, 4), "interquartile mean (mean of fewer than 5)"),
        ((4, 3), "mean"),
    ],
)
def test_what_few_seeds_have_is_called_a_mean(counts, said):
    assert style.centre("iqm", counts) == said and style.centre("mean", counts) == "mean"


def test_a_zero_tells_groups_apart_by_name(tmp_path):
    folders = [made_up_run(tmp_path / str(tau), 1, [1.0], tau=tau) for tau in (0.0, 0.5, 1.0)]
    curves.curves(folders, tmp_path / "out")
    assert {row["group"] for row in table(tmp_path / "out")} == {f"plain CAVIA, tau {tau}" for tau in ("0", "0.5", "1")}


def test_iterations_that_all_runs_have(tmp_path):
    folders = [made_up_run(tmp_path / "a", 1, [1.0, 2.0, 3.0]), made_up_run(tmp_path / "b", 2, [3.0, 4.0])]
    curves.curves(folders, tmp_path / "out")
    assert [(row["iteration"], float(row["value"])) for row in table(tmp_path / "out")] == [("0", 2.0), ("1", 3.0)]


def test_smoothing():
    np.testing.assert_allclose(curves.smoothed(pd.DataFrame([2.0, 4.0, 9.0, 2.0]), 3)[0], [2.0, 3.0, 5.0, 5.0])
    np.testing.assert_array_equal(curves.smoothed(pd.DataFrame([2.0, 4.0]), 1)[0], [2.0, 4.0])


def learners(tmp_path, *lengths):
    """Two groups of 3 seeds that end alike; the second learns sooner. So many iterations have their runs."""
    ends = np.minimum(np.arange(100) / 50, 1), np.minimum(np.arange(100) / 20, 1)
    return [
        made_up_run(tmp_path / f"{lr}_{seed}", seed, list(end[:length] + noise * seed), fast_lr=lr)
        for lr, end, length, noise in zip((1.0, 0.5), ends, lengths, (0.01, -0.01), strict=True)
        for seed in range(3)
    ]


def test_smoothing_changes_no_comparison(tmp_path):
    found = learners(tmp_path, 100, 100)
    lines = [curves.curves(found, tmp_path / "out", smooth=window)[1] for window in (1, 50)]
    assert lines[0] == lines[1] and "no significant difference" in lines[0][-1]


def test_runs_of_unequal_length_are_compared_where_both_have_been(tmp_path):
    """The second group, at 40 of 100 iterations, has learnt what the first then learns."""
    *_, line = curves.curves(learners(tmp_path, 100, 40), tmp_path / "out")[1]
    assert f"{LAST_TENTH} of the 40 iterations that both have: plain CAVIA, fast lr 0.5 is better" in line
    early, late = (
        made_up_run(tmp_path / name, 1, [1.0], expname=name, maml=name == "late") for name in ("early", "late")
    )
    write_progress(late, {AFTER: {500: 1.0}})
    assert "share no seed or no iteration" in curves.curves([early, late], tmp_path / "out")[1][-1]


def test_evaluations_are_smoothed_no_more_than_the_reference_beside_them(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [0.0])
    write_progress(folder, {"evaluation_rew/avg_rew 2": {0: 1.0, 10: 2.0, 20: 3.0}})
    curves.curves([folder], tmp_path / "out", metrics=["test/2"], smooth=3)
    assert [float(row["value"]) for row in table(tmp_path / "out")] == [1, 2, 3]


def test_environments_whose_files_differ_in_whatever_are_no_seeds_of_one(tmp_path):
    """Also where a title calls them the same."""
    text = (ROOT / "rl/envs/ctgraph/ctgraph_d2.json").read_text(encoding="utf-8")
    folders = []
    for seed, delay in enumerate(("0.0", "0.0", "0.5")):
        name = "CTgraphEnvGoalChange-v0"
        folders.append(made_up_run(tmp_path / str(seed), seed, [1.0], env_name=name, env_config_path="graph.json"))
        changed = text.replace('"delay_prob": 0.0', f'"delay_prob": {delay}')
        (folders[-1] / "graph.json").write_text(changed, encoding="utf-8")
    curves.curves(folders, tmp_path / "out")
    assert [row["seeds"] for row in table(tmp_path / "out")] == ["2", "1"]


def test_only_references_of_every_iteration_are_smoothed(tmp_path):
    content = {"environment": "e", "method": "m", "source": "s", "after_update": [0, 2, 4]}
    for name, iterations in (("dense", [5, 6, 7]), ("sparse", [0, 25, 50])):
        (tmp_path / name).write_text(json.dumps(content | {"iteration": iterations}), encoding="utf-8")
    dense, sparse = (read_reference(tmp_path / name) for name in ("dense", "sparse"))
    np.testing.assert_allclose(curves.smoothed(dense.curves, 2)["after_update"], [0, 1, 3])
    np.testing.assert_allclose(curves.smoothed(sparse.curves, 2)["after_update"], [0, 2, 4])


def test_a_reference_of_evaluations_stands_beside_a_run_s(tmp_path):
    content = {"environment": "environment", "method": "m", "source": "s", "iteration": [0, 10], "test/2": [7, 9]}
    (tmp_path / "reference").write_text(json.dumps(content), encoding="utf-8")
    drawn = read_curves([made_up_run(tmp_path / "run", 1, [1.0, 2.0])], "after_update", "test/2")
    (line,) = curves.standing(read_reference(tmp_path / "reference"), "test/2", drawn)
    assert "test/2 at iteration 0: " in line and line.endswith(" 10, reference 7")


def test_the_end_of_a_run_is_its_last_tenth():
    assert curves.last_tenth(pd.DataFrame({7: np.arange(20.0), 8: np.ones(20)})).to_dict() == {7: 18.5, 8: 1.0}
    assert curves.last_tenth(pd.DataFrame({7: [3.0, 4.0]})).to_dict() == {7: 4.0}


def test_a_last_line_that_was_cut_is_left_out(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0, 2.0, 3.0])
    path = folder / "progress.csv"
    iterations, values = runs.read_run(folder).curve("evaluation_rew/avg_rew 2")
    assert iterations.tolist() == [0, 1, 2] and values.tolist() == [10.0, 20.0, 30.0]
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:-3], whole[: whole.rindex(b"\n2") + 2], whole[:-9] + b"\0" * 9):
        path.write_bytes(cut)
        assert runs.read_run(folder).curve("evaluation_rew/avg_rew 2")[0].tolist() == [0, 1]


def test_iterations_that_measured_nothing_are_left_out(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0])
    write_progress(folder, {"trpo/kl": [0.1, 0.2, 0.3], "evaluation_rew/avg_rew 0": {0: -5.0, 2: -3.0}, "never": []})
    run = runs.read_run(folder)
    iterations, values = run.curve("evaluation_rew/avg_rew 0")
    assert iterations.tolist() == [0, 2] and values.tolist() == [-5.0, -3.0]
    with pytest.raises(UserError, match=r"has no curve never; it has: evaluation_rew/avg_rew 0, trpo/kl$"):
        run.curve("never")


@pytest.mark.parametrize("content", ["", "time,return\n0,1.5\n", "iteration,a\n0,high\n", "iteration,a\n,1\n", "\0\n"])
def test_files_that_hold_no_curves_are_refused_in_one_line(tmp_path, content):
    folder = made_up_run(tmp_path / "run", 1, [1.0])
    (folder / "progress.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"progress\.csv: expected a run's curves") as caught:
        curves.curves([folder], tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_runs_of_earlier_versions_are_refused_as_such(tmp_path):
    folder = made_up_run(tmp_path / "run", 1, [1.0])
    (folder / "progress.csv").unlink()
    with pytest.raises(UserError, match=r"with a progress\.csv, found none"):
        runs.read_run(folder)
    (folder / "events.out.tfevents.1").touch()
    with pytest.raises(UserError, match=r"with a progress\.csv, found a run of an earlier version"):
        runs.read_run(folder)
