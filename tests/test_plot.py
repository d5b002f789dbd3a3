"""Every command of plot.py on tiny real runs: what it writes and prints, bad input."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl import plot
from rl.config import Config
from rl.plots import adaptation, style
from tests.support.documents import commands
from tests.support.helpers import ROOT

HARD = "neuromodulated CAVIA, hard gates"


def drawn(path):
    """Check that a picture is one: as PNG with something on it, and as PDF."""
    pixels = imread(f"{path}.png")[..., :3]
    ink = pixels.min(axis=2) < 0.9
    assert 0.005 < ink.mean() < 0.9
    # Something is drawn in the middle, not at the rims alone.
    height, width = ink.shape
    assert ink[height // 4 : -height // 4, width // 4 : -width // 4].any()
    assert (path.parent / f"{path.name}.pdf").read_bytes().startswith(b"%PDF-1.4")


def table(path):
    with open(f"{path}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(path):
    return json.loads((path.parent / f"{path.name}.json").read_text(encoding="utf-8"))


def complaint(capsys, *line):
    """The one line that bad input brings."""
    capsys.readouterr()
    assert plot.main([str(word) for word in line]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("plot.py: ")
    return captured.err


def test_curves(tiny, tmp_path, capsys):
    output = tmp_path / "drawn.curves"
    assert plot.main(["curves", str(tiny.run("navigation")), str(tiny.run("plain")), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert said.count("one seed: no interval over seeds can be given") == 2
    assert "plain CAVIA minus neuromodulated CAVIA, hard gates: " in said and "give no interval (1 shared)" in said
    assert [line.split("written: ")[1] for line in said.splitlines() if line.startswith("written")] == [
        f"{output}.png", f"{output}.pdf", f"{output}.csv"
    ]  # fmt: skip
    drawn(output)
    assert [(row["group"], row["iteration"], row["low_95"]) for row in table(output)] == [
        (HARD, "0", ""), (HARD, "1", ""), ("plain CAVIA", "0", ""), ("plain CAVIA", "1", "")
    ]  # fmt: skip


def test_curves_of_two_environments_beside_references(tiny, tmp_path, capsys):
    output, folder = tmp_path / "curves", ROOT / "docs" / "reference_curves"
    references = [str(folder / "2d_navigation_nm_hard.json"), str(folder / "ctgraph_depth2_nm_hard.json")]
    line = ["curves", str(tiny.run("navigation")), str(tiny.run("graph")), "--output", str(output)]
    assert plot.main([*line, "--panel-by", "environment", "--reference", *references]) == 0
    assert "after_update at iteration 1: neuromodulated CAVIA, soft gates" in capsys.readouterr().out
    drawn(output)
    rows = [row for row in table(output) if row["group"].startswith("reference")]
    assert len(rows) == 30 + 60 and rows[0]["value"] == "-101.7334"


def test_adaptation(tiny, tmp_path, capsys):
    output = tmp_path / "adaptation"
    folders = [str(tiny.evaluation(name)) for name in ("navigation", "plain")]
    capsys.readouterr()
    assert plot.main(["adaptation", *folders, "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert said.out.count(": 1 evaluation(s), interval over tasks; one seed: no interval") == 2 and said.err == ""
    drawn(output)
    results = json.loads((tiny.evaluation("plain") / "results.json").read_text(encoding="utf-8"))
    rows = [row for row in table(output) if row["group"] == "plain CAVIA"]
    np.testing.assert_allclose([float(row["value"]) for row in rows], [row["mean"] for row in results["returns"]])
    assert all(float(row["low_95"]) < float(row["value"]) < float(row["high_95"]) for row in rows)


def made_up_evaluation(folder, seed, returns, **options):
    """An evaluation's folder: two tasks of one step and one episode, with `returns` after 0, 1, … updates."""
    folder.mkdir()
    config = dataclasses.asdict(Config(seed=seed, num_test_steps=len(returns) - 1, **options))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "results.json").write_text("{}", encoding="utf-8")
    np.save(folder / "rewards.npy", np.array([returns, returns], float)[:, None, None])
    return str(folder)


@pytest.fixture
def evaluations(tmp_path):
    """Three seeds of plain CAVIA that earn 0, of larger step size 1, 2 and 3, and of another name 0.5, 0.6 and 0.7."""
    earned = {(): (0, 0, 0), ("fast_lr", 2.0): (1, 2, 3), ("gamma", 0.5): (0.5, 0.6, 0.7)}
    return [
        made_up_evaluation(tmp_path / f"{number}_{seed}", seed, [0, 0, value], **(dict([option]) if option else {}))
        for number, (option, values) in enumerate(earned.items())
        for seed, value in enumerate(values)
    ]


def test_a_table_of_evaluations(evaluations, tmp_path, capsys):
    """Differences 1, 2, 3 are 2 ± 4.303/√3 = 2.48, t = 2√3, p = 0.0742; 0.5, 0.6, 0.7 have p = 0.0091, which Holm's
    correction over four comparisons, two of them of equal values, makes 0.037.
    """
    line = ["table", *evaluations, "--label", "A|B", "C & D", "50%", "--output", str(tmp_path / "out")]
    assert plot.main(line) == 0
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in row.split(" | ")] for row in said.splitlines() if row.startswith("| ")]
    assert rows[0][1:] == [
        "seeds",
        "return after 1 update",
        "difference",
        "p",
        "return after 2 updates",
        "difference",
        "p |",
    ]
    assert [row[0] for row in rows[2:]] == [r"| A\|B", "| C & D", "| 50%"]
    assert rows[3][4:7] == ["1", "2.00 [−0.48, 4.48]", "2.00 [−0.48, 4.48]"] and rows[3][7] == "0.22 |"
    assert rows[4][6:] == ["0.60 [0.35, 0.85]", "0.037 |"]
    assert "4 comparisons" in said and (tmp_path / "out.md").read_text(encoding="utf-8") in said
    assert plot.main([*line, "--format", "latex", "--updates", "2"]) == 0
    text = (tmp_path / "out.tex").read_text(encoding="utf-8")
    assert r"C \& D & 3 & 2.00 [$-$0.48, 4.48] & 2.00 [$-$0.48, 4.48] & 0.074 \\" in text and r"50\%" in text
    assert plot.main([*line, "--format", "csv", "--updates", "2"]) == 0
    (row,) = (row for row in table(tmp_path / "out") if row["group"] == "50%")
    found = [float(row[name]) for name in ("value", "difference", "p", "p_holm", "pairs")]
    assert found == pytest.approx([0.6, 0.6, 0.00913, 0.0183, 3], abs=1e-4)
    assert "--updates: expected at most 2" in complaint(capsys, *line, "--updates", "3")
    (tmp_path / "out.md").write_text("a thesis", encoding="utf-8")
    assert "out.md: is not of plot.py" in complaint(capsys, *line)
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == "a thesis"


def test_evaluations_are_compared_in_pairs(evaluations, tmp_path, capsys):
    assert plot.main(["adaptation", *evaluations, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "gamma 0.5, fast lr 1 is better than plain CAVIA, gamma 0.95, fast lr 1 by 0.6 [0.3516, 0.8484]" in said
    assert said.count("p = ") == 2


def test_tensorboard_has_an_evaluation_s_options_and_picture(tiny):
    folder = tiny.evaluation("plain")
    shown = EventAccumulator(str(folder)).Reload()
    (image,) = shown.Images("adaptation")
    assert image.encoded_image_string == (folder / "adaptation.png").read_bytes()
    assert "_hparams_/session_start_info" in shown.PluginTagToContent("hparams")


def test_adaptation_separates_interventions(tiny, tmp_path):
    output = tmp_path / "adaptation"
    folders = [tiny.evaluation("navigation"), tiny.evaluation("navigation", "--modulation", "ones")]
    assert plot.main(["adaptation", *map(str, folders), "--output", str(output)]) == 0
    groups = dict.fromkeys(row["group"] for row in table(output))
    assert list(groups) == [HARD, f"{HARD}, modulation ones"]


@pytest.mark.parametrize("name", ["navigation", "graph", "cheetah"])
def test_trajectories(name, tiny, tmp_path):
    output = tmp_path / "trajectories"
    options = ["--num-tasks", "3"] if name == "cheetah" else []
    folder = tiny.evaluation(name, *options)
    assert plot.main(["trajectories", str(folder), "--output", str(output)]) == 0
    drawn(output)
    if name == "graph":
        rows = table(output)
        leaves = {task["leaf"] for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8"))}
        assert {int(row["goal_leaf"]) for row in rows} == leaves
        # Of each leaf and each of three numbers of updates: home, two decisions, four leaves, and crashes.
        assert len(rows) == len(leaves) * 3 * 8
        assert all(0 <= float(row["share_of_episodes"]) <= 1 for row in rows)


@pytest.mark.parametrize("name", ["graph", "plain"])
def test_representation(name, tiny, tmp_path, capsys):
    output = tmp_path / "representation"
    folder = tiny.evaluation(name)
    assert plot.main(["representation", str(folder), "--output", str(output)]) == 0
    assert "before adaptation all tasks have the same policy: all similarities are 1, and not drawn" in (
        capsys.readouterr().out
    )
    drawn(output)
    (described,) = numbers(output)["evaluations"]
    kinds = ["output"] if name == "plain" else ["modulators", "output"]
    assert list(described["similarity"]) == [f"layer{layer}.{kind}" for layer in (1, 2) for kind in kinds]
    for maps in described["similarity"].values():
        assert [found["updates"] for found in maps] == [0, 1, 2]
        # Before adaptation all tasks are the same to the policy.
        assert maps[0]["mean_off_diagonal"] == pytest.approx(1.0, abs=1e-4)


def test_representation_of_two_policies(tiny, tmp_path, capsys):
    output, first = tmp_path / "representation", tiny.evaluation("navigation")
    for second, same in ((tiny.evaluation("plain"), False), (tiny.evaluation("plain", "--probe", str(first)), True)):
        line = ["representation", str(first), "--against", str(second), "--output", str(output)]
        assert plot.main(line) == 0
        assert ("probe observations of their own" in capsys.readouterr().out) is not same
        told = numbers(output)
        assert told["same_probe_observations"] is same
        assert [found["method"] for found in told["evaluations"]] == [HARD, "plain CAVIA"]
        drawn(output)


@pytest.mark.parametrize("name", ["navigation", "maml"])
def test_gates(name, tiny, tmp_path):
    output, folder = tmp_path / "gates", tiny.evaluation(name)
    assert plot.main(["gates", str(folder), "--output", str(output)]) == 0
    drawn(output)
    told, probe = numbers(output)["layers"], np.load(folder / "probe.npz")
    assert list(told) == ["layer1", "layer2"]
    negative = (probe["layer1.gates"][:, 2] < 0).mean()
    assert told["layer1"]["negative"][2] == pytest.approx(negative)
    assert told["layer1"]["flips_between_tasks"][0] == 0.0
    for layer, ends in numbers(output)["intervals_95"].items():
        assert sorted(ends) == ["flips_between_steps", "flips_between_tasks", "negative", "saturated"]
        for share, (low, high) in ends.items():
            values = np.array(told[layer][share])
            assert (np.array(low) <= values + 1e-9).all() and (values <= np.array(high) + 1e-9).all()


def test_pictures_go_into_the_evaluations_folder(tiny):
    folder = tiny.evaluation("graph", "--num-tasks", "3")
    assert plot.main(["gates", str(folder)]) == 0
    drawn(folder / "gates")


def test_the_same_numbers_make_the_same_files(tiny, tmp_path):
    for name in ("first", "second"):
        plot.main(["curves", str(tiny.run("plain")), "--output", str(tmp_path / name)])
    for suffix in (".png", ".pdf", ".csv"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_folders_that_are_none(tiny, tmp_path, capsys):
    run, evaluation = tiny.run("plain"), tiny.evaluation("plain")
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}: expected a training run's log folder, found no such" in complaint(capsys, "curves", nowhere)
    assert f"{tmp_path}: expected an evaluation's folder, found no config.json" in complaint(capsys, "gates", tmp_path)
    assert f"{evaluation}: expected a training run's log folder, found an" in complaint(capsys, "curves", evaluation)
    assert f"{run}: expected an evaluation's folder, found no results.json" in complaint(capsys, "adaptation", run)


def test_different_environments(tiny, capsys):
    graph, plain = tiny.run("graph"), tiny.run("plain")
    assert (
        f"{graph}: is of CTgraphEnvGoalChange-v0 depth 2, but {plain} of 2DNavigation-v0; one picture shows one"
        in complaint(capsys, "curves", plain, graph)
    )
    both = tiny.evaluation("plain"), tiny.evaluation("graph")
    assert "one picture shows one environment" in complaint(capsys, "adaptation", *both)
    assert "one picture shows one environment" in complaint(capsys, "representation", both[0], "--against", both[1])


def test_an_evaluation_without_activations(tiny, capsys):
    folder = tiny.evaluation("navigation", "--activations", "0")
    for command, file in (("representation", "probe"), ("gates", "probe"), ("trajectories", "episodes")):
        expected = f"{folder}: an evaluation without {file}.npz; run test.py again with --activations above 0"
        assert expected in complaint(capsys, command, folder)
    checked = tiny.evaluation("navigation", "--modulation", "ones")
    assert "an evaluation without probe.npz" in complaint(capsys, "gates", checked)


def test_a_plain_policy_has_no_gates(tiny, capsys):
    folder = tiny.evaluation("plain")
    assert f"{folder}: a plain policy (plain CAVIA) has no gates" in complaint(capsys, "gates", folder)


def test_other_bad_input(tiny, tmp_path, capsys):
    run = tiny.run("plain")
    assert "expected after_update, before_update" in complaint(capsys, "curves", run, "--metric", "reward")
    assert "has no curve evaluation_success/any 1" in complaint(capsys, "curves", run, "--metric", "success/1")
    assert "need a picture each" in complaint(capsys, "curves", run, "--metric", "success/1", "test/1")
    assert "--group-by: unknown option 'colour'" in complaint(capsys, "curves", run, "--group-by", "colour")
    assert "is of a run with seed 42" in complaint(capsys, "curves", run, run)
    assert "expected a whole number from 1 to 2147483647, got '0'" in complaint(capsys, "curves", run, "--smooth", "0")
    for large in (str(2**63), "9" * 5000):
        assert "--smooth: expected a whole number from 1 to" in complaint(capsys, "curves", run, "--smooth", large)
        assert len(complaint(capsys, "curves", run, "--metric", f"test/{large}")) < 400
    assert "--help lists all options" in complaint(capsys, "portrait", run)
    graph = ROOT / "docs" / "reference_curves" / "ctgraph_depth2_nm_hard.json"
    assert f"{graph}: is of CTgraphEnvGoalChange-v0 depth 2" in complaint(capsys, "curves", run, "--reference", graph)
    cavia = ROOT / "docs" / "reference_curves" / "2d_navigation_cavia.json"
    line = ["curves", run, "--metric", "before_update", "--reference", cavia]
    assert "has only after_update" in complaint(capsys, *line)
    assert "expected a reference curve" in complaint(capsys, "curves", run, "--reference", run / "config.json")
    assert "cannot be written" in complaint(capsys, "curves", run, "--output", run / "config.json" / "picture")


def test_an_evaluation_without_trajectories(tiny, tmp_path, capsys):
    """A real evaluation under another environment's name."""
    source, folder = tiny.evaluation("plain"), tmp_path / "evaluation"
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(config | {"env_name": "tests.support.user_environments:Seek-v0"}), encoding="utf-8"
    )
    assert "no picture of trajectories for tests.support.user_environments:Seek-v0" in complaint(
        capsys, "trajectories", folder
    )


def test_the_documented_commands_are_understood():
    """Placeholders stand for folders; the commands themselves are run above."""
    found = commands("plot.py")
    assert {line[0] for line in found} == {"curves", "adaptation", "table", "trajectories", "representation", "gates"}
    for line in found:
        options = plot.parse(line)
        for path in getattr(options, "references", []):
            assert (ROOT / "rl" / path).is_file()


def test_output_is_a_name_with_or_without_suffix_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for typed, expected in (
        ("out", "out"), ("out.png", "out"), ("out.md", "out"), ("out.tex", "out"),
        ("a.b/out.pdf", "a.b/out"), ("drawn.curves", "drawn.curves"),
        (".", "curves"), ("new/", "new/curves"), (str(tmp_path), f"{tmp_path}/curves"),
    ):  # fmt: skip
        assert str(style.place(typed, "curves")) == expected


def test_pictures_replace_nothing_but_pictures(tiny, tmp_path, capsys):
    """Names of a run's own files are refused where nothing of that name is yet, too."""
    folder = shutil.copytree(tiny.evaluation("graph"), tmp_path / "evaluation")
    (tmp_path / "thesis.csv").write_text("mine")
    (tmp_path / "photo.png").symlink_to(tmp_path / "thesis.csv")
    (tmp_path / "figure.pdf").write_bytes(b"%PDF-1.4 /Creator (Matplotlib v3) /CreationDate (D:2020)")

    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before, own = contents(), ["config", "results", "tasks", "activations", "progress.json", "ctgraph_d2"]
    for output in [*(folder / name for name in own), *(tmp_path / name for name in ("thesis", "photo.png", "figure"))]:
        assert "is not of plot.py" in complaint(capsys, "adaptation", folder, "--output", output)
        assert "is not of plot.py" in complaint(capsys, "gates", folder, "--output", output)
    assert contents() == before
    for _ in range(2):
        assert plot.main(["gates", str(folder), "--output", str(tmp_path / "gates.pdf")]) == 0
        assert plot.main(["adaptation", str(folder), "--output", str(folder / "adaptation")]) == 0


def test_one_group_shows_its_tasks_and_several_their_means_alone():
    """The errorbar of a group, and a thin line of each task where there is one group."""
    values = {"a": {1: np.array([[0.0, 1.0], [2.0, 3.0]])}, "b": {1: np.array([[1.0, 1.0], [2.0, 2.0]])}}
    figure = adaptation.draw(adaptation.Measurements("e", {adaptation.RETURN: {"a": values["a"]}}))
    (panel,) = figure.axes
    assert sum(line.get_linewidth() == 0.4 for line in panel.lines) == 2 and panel.get_title() == "e\na (2 tasks)"
    # What the only curve is, the title says.
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one task"]
    (panel,) = adaptation.draw(adaptation.Measurements("e", {adaptation.RETURN: values})).axes
    shown = [line.get_ydata().tolist() for line in panel.lines if line.get_marker() in "os"]
    assert shown == [[1.0, 2.0], [1.5, 1.5]] and not any(line.get_linewidth() < 0.5 for line in panel.lines)


def test_success_has_an_axis_from_0_to_1():
    group = {1: np.array([[0.0, 1.0], [0.0, 1.0]])}
    measured = adaptation.Measurements("e", {adaptation.RETURN: {"a": group}, adaptation.SUCCESS: {"a": group}})
    figure = adaptation.draw(measured)
    _, panel = figure.axes
    assert panel.get_ylim() == (-0.02, 1.02) and panel.get_ylabel().startswith("success rate (any step)\n")
    # Wilson's interval of 0 of 2: 0 to z²/(n + z²) = 0.658.
    assert adaptation.mean_and_interval(adaptation.SUCCESS, group).high[0] == pytest.approx(0.658, abs=1e-3)


def test_several_evaluations_have_an_interval_over_seeds():
    # Two seeds whose tasks have means 1 and 2: 1.5 ± 12.706·(1/√2)/√2 = ±6.353, however many tasks there are.
    group = {1: np.full((50, 1), 1.0), 2: np.full((50, 1), 2.0)}
    mean, low, high = adaptation.mean_and_interval(adaptation.RETURN, group)
    assert (mean[0], low[0], high[0]) == pytest.approx((1.5, 1.5 - 6.353, 1.5 + 6.353), abs=1e-3)
    assert adaptation.spread(2) == "seeds" and adaptation.spread(1).startswith("tasks")
    # Of two seeds each is drawn, in place of an interval that would hide all else.
    (panel,) = adaptation.draw(adaptation.Measurements("e", {adaptation.RETURN: {"a": group}})).axes
    assert sum(line.get_linewidth() == 0.4 for line in panel.lines) == 2 and not panel.collections
