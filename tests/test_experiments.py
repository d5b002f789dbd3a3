"""The experiments: their table, what is kept of a run, and the page that is written from it."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from rl.config import parse_options
from tests.support import documents
from tests.support.helpers import ROOT

HERE = ROOT / "experiments"
sys.path.insert(0, str(HERE))
report, table = (importlib.import_module(name) for name in ("report", "table"))

TABLE = table.read()
EVERY = [(row.name, method) for row in TABLE.experiments.values() for method in row.methods]


@pytest.mark.parametrize("experiment, method", EVERY)
def test_every_run_has_options_that_main_takes(experiment, method):
    config = parse_options([*TABLE.options(experiment, method), "--seed", "1"])
    assert config.num_batches == TABLE.experiments[experiment].iterations
    assert config.neuromodulation == method.startswith("nm_")
    if method.startswith("nm_"):
        gate, _, bias = method.removeprefix("nm_").partition("_")
        assert (config.nm_gate, config.nm_gate_bias) == (gate, float(bias or 0))
    assert config.match_params == (method == "cavia_matched")
    assert TABLE.experiments[experiment].baseline in TABLE.experiments[experiment].methods


def test_options_are_those_of_the_documented_commands():
    # Of each experiment of the paper docs/experiments.md gives one command; nothing but these options may differ.
    commands = [parse_options(line) for line in documents.commands("main.py", "docs/experiments.md")]
    free = {"seed", "expname", "num_batches", "num_workers", "neuromodulation", "nm_gate", "nm_size", "save_freq"}
    for row in TABLE.experiments.values():
        ours = {
            name: value
            for name, value in dataclasses.asdict(parse_options(TABLE.options(row.name, row.methods[0]))).items()
            if name not in free
        }
        ours["match_params"] = False
        ours["env_config_path"] = ours["env_config_path"] and f"./{ours['env_config_path']}"
        assert any(ours.items() <= dataclasses.asdict(command).items() for command in commands), row.name


def test_a_table_with_a_mistake_is_refused_in_one_line(tmp_path):
    text = (HERE / "experiments.toml").read_text(encoding="utf-8")
    path = tmp_path / "table.toml"
    for wrong, message in (
        (text.replace("iterations = 501", "iteration = 501", 1), "ctgraph_d2: missing or unknown keys: iteration"),
        (text.replace('"nm_hard"', '"nm_firm"', 1), "no method 'nm_firm' is declared"),
        (text.replace('like = "navigation"', 'like = "maze"'), "navigation_bias: like 'maze': expected the name of"),
        (text + "[", "expected a TOML file"),
    ):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(table.TableError) as caught:
            table.read(path)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(table.TableError, match=r"unknown experiment 'maze'; known: ctgraph_d2"):
        TABLE.chosen(["maze"])
    assert TABLE.chosen([]) == list(TABLE.experiments.values())


def test_results_and_runs_of_other_options_are_refused(tmp_path):
    row = TABLE.experiments["ctgraph_d2"]
    runs, results = tmp_path / "runs", tmp_path / "results"
    wanted = " ".join(TABLE.options(row.name, "nm_hard"))
    kept, begun = results / row.name / "nm_hard/3.json", runs / row.name / "nm_hard/3/options"
    for path in (kept, begun):
        path.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"options": wanted}), encoding="utf-8")
    begun.write_text(f"{wanted}\n", encoding="utf-8")
    TABLE.check(row, runs, results)
    begun.write_text(wanted.replace("--fast-lr 0.5", "--fast-lr 0.4"), encoding="utf-8")
    with pytest.raises(table.TableError, match=r"nm_hard/3/options: is of a run with other options than the table's"):
        TABLE.check(row, runs, results)
    begun.unlink()
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(table.TableError, match=r"3\.json: expected what experiments/evaluate\.py writes"):
        TABLE.check(row, runs, results)
    assert kept.read_text(encoding="utf-8") == "{}"


def test_what_is_kept_is_of_the_table():
    found = sorted((ROOT / "results").glob("*/*/*.json"))
    for path in found:
        if not path.stem.isdecimal():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        experiment, method = path.parts[-3:-1]
        row = TABLE.experiments[experiment]
        assert (content["experiment"], content["method"], content["seed"]) == (experiment, method, int(path.stem))
        assert content["options"] == " ".join(TABLE.options(experiment, method))
        assert len(content["curves"]["after_update"]) == content["iterations"] == row.iterations
        assert np.shape(content["test"]["returns"]) == (5, 200)


def test_the_page_says_what_the_results_say():
    # Numbers may differ in their last digit, where another processor rounds a tie the other way.
    expected = report.page(list(TABLE.experiments.values()), TABLE.methods)
    assert_alike((ROOT / "docs/results.md").read_text(encoding="utf-8"), expected)


def test_the_front_page_says_what_the_results_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = text.partition(report.BEGIN)[2].partition(report.END)[0]
    rows = [row for row in TABLE.experiments.values() if row.paper_iterations]
    assert_alike(found.strip("\n"), "\n".join(report.front(rows, TABLE.methods)))


def test_the_front_page_names_the_method_that_gains_most(tmp_path):
    row = TABLE.experiments["navigation"]
    lines = report.front([row], TABLE.methods, tmp_path)
    assert lines[2:] == ["| 2D navigation | not run |  |  |"]

    def keep(method, shifts):
        for seed, shift in enumerate(shifts, 1):
            path = tmp_path / row.name / method / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(made_up(shift, [seed])[seed]), encoding="utf-8")

    keep("nm_hard", [1.0, 1.1, 1.2])
    assert report.front([row], TABLE.methods, tmp_path)[2] == "| 2D navigation | 1 | none with an interval yet |  |"
    # Differences −1, −0.9, −0.8, and −2, −1.9, −1.8: the smaller loss is the largest difference; 4.303·0.1/√3 = 0.248.
    keep("cavia", [2.0, 2.0, 2.0])
    keep("nm_soft_2", [0.0, 0.1, 0.2])
    assert report.front([row], TABLE.methods, tmp_path)[2] == (
        "| 2D navigation | 3 | hard gates, as published, minus plain CAVIA: −0.90 [−1.15, −0.65] | 3 |"
    )


NUMBER = re.compile(r"−?\d+\.\d+")


def assert_alike(found, expected):
    assert NUMBER.sub("#", found).splitlines() == NUMBER.sub("#", expected).splitlines()
    for left, right in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        unit = 10.0 ** -len(right.partition(".")[2])
        assert abs(float(left.replace("−", "-")) - float(right.replace("−", "-"))) < 1.01 * unit


def made_up(shift, seeds, updates=2):
    """Results whose mean over tasks after the last update is shift + seed."""
    returns = {seed: [[0.0, 0.0]] * updates + [[shift + seed - 1.0, shift + seed + 1.0]] for seed in seeds}
    return {
        seed: {"test": {"returns": values}, "curves": {"before_update": [0.0] * 3, "after_update": [shift] * 3}}
        for seed, values in returns.items()
    }


def test_few_seeds_get_students_interval_and_one_gets_none():
    # Mean 2 of 1, 2, 3 with standard deviation 1: t(0.975, 2) = 4.303, 4.303/√3 = 2.484.
    found = report.estimate([1.0, 2.0, 3.0])
    assert found.value == 2 and found.interval == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)
    assert str(found) == "2.00 [−0.48, 4.48]"
    assert report.estimate([1.5]) == (1.5, None) and str(report.estimate([1.5])) == "1.50"


def test_five_seeds_get_the_interquartile_mean_and_a_bootstrap():
    # A quarter of 5, rounded down, is 1 at either end: the mean of 1, 2 and 3. No resample leaves [0, 100].
    found = report.estimate([0.0, 1.0, 2.0, 3.0, 100.0])
    assert found.value == 2 and 0 <= found.interval[0] < 2 < found.interval[1] <= 100


def test_differences_are_paired_by_seed():
    # Seeds 2 and 3 are shared and differ by 0.5 and 0.7: 0.6 ± 12.706·0.1414/√2 = 1.2706.
    ours = made_up(1.5, [1, 2]) | made_up(1.7, [3])
    found, better = report.difference(ours, made_up(1.0, [2, 3, 4]))
    assert found.value == pytest.approx(0.6) and better == 1
    assert found.interval == pytest.approx((0.6 - 1.2706, 0.6 + 1.2706), abs=1e-3)
    # One shared seed, or differences that are all equal: no interval, so no claim.
    assert report.difference(made_up(1.5, [1, 2]), made_up(1.0, [2, 3])) is None
    assert report.difference(made_up(1.5, [1, 2]), made_up(1.0, [1, 2])) is None


def test_the_sentence_follows_the_interval():
    # Differences 1, 1.1, 1.2: 1.1 ± 4.303·0.1/√3 = 0.248; of the other sign; and 1, 1.1, −4.
    row = TABLE.experiments["navigation"]
    better, worse, unsure = (
        {seed: made_up(shift, [seed])[seed] for seed, shift in zip((1, 2, 3), shifts, strict=True)}
        for shifts in ((2.0, 2.1, 2.2), (0.0, -0.1, -0.2), (2.0, 2.1, -3.0))
    )
    found = {"cavia": made_up(1.0, [1, 2, 3]), "nm_hard": better, "nm_soft_2": worse}
    text = report.sentence(row, found, TABLE.methods)
    assert "better: hard gates, as published (1.10 [0.85, 1.35])" in text
    assert "worse: soft gates, bias 2 (−1.10 [−1.35, −0.85])" in text
    text = report.sentence(row, found | {"nm_hard": unsure}, TABLE.methods)
    assert "not told apart from it: hard gates, as published (−0.63 [" in text
    assert "nothing yet" in report.sentence(row, {"nm_hard": better}, TABLE.methods)


def test_what_was_not_run_says_so():
    row = TABLE.experiments["navigation"]
    lines = "\n".join(report.section(row, {"cavia": made_up(1.0, [1, 2])}, TABLE.methods))
    assert "| hard gates, as published | not run |" in lines and "| plain CAVIA | 2 of 5 |" in lines
    assert "Not run." in report.section(row, {}, TABLE.methods)


@pytest.mark.slow
def test_the_workflow_trains_evaluates_and_takes_up_what_was_stopped(tmp_path):
    pytest.importorskip("snakemake", reason="make test-slow installs it")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    for folder in ("results", "docs/results.md"):
        subprocess.run(["rm", "-rf", clone / folder], check=True)
    toml = clone / "experiments/experiments.toml"
    text = (
        toml.read_text(encoding="utf-8").replace("iterations = 201", "iterations = 2").replace("[1, 2, 3, 4, 5]", "[1]")
    )
    toml.write_text(text.replace("--hidden-size 100", "--hidden-size 8"), encoding="utf-8")

    def workflow(experiment):
        command = [sys.executable, "-m", "snakemake", "--snakefile", "experiments/Snakefile", "--cores", "2"]
        command += ["--config", f"experiments={experiment}", "--", "all"]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)

    done = workflow("navigation")
    assert done.returncode == 0, done.stderr
    kept = sorted((clone / "results/navigation").glob("*/1.json"))
    assert [path.parts[-2] for path in kept] == ["cavia", "nm_hard", "nm_soft_2"]
    assert "| 2D navigation | plain CAVIA |" in (clone / "docs/results.md").read_text(encoding="utf-8")
    before = [path.read_bytes() for path in kept]
    assert workflow("navigation").returncode == 0 and [path.read_bytes() for path in kept] == before
    # Options changed under the same name: nothing is overwritten.
    toml.write_text(toml.read_text(encoding="utf-8").replace("--fast-lr 0.5", "--fast-lr 0.4"), encoding="utf-8")
    refused = workflow("navigation")
    assert refused.returncode != 0 and "other options than the table's" in refused.stderr
    assert [path.read_bytes() for path in kept] == before
    assert "unknown experiment 'maze'" in workflow("maze").stderr
