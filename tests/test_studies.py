"""The experiments: their table, what is kept of a run, and the page that is written from it."""

import dataclasses
import functools
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import rl
from rl.config import Config, parse_options
from rl.errors import UserError
from rl.evaluation import comparisons
from rl.files import read_json, write_json
from rl.plots import style
from tests.support import documents
from tests.support.helpers import ROOT

HERE = ROOT / "studies"
sys.path.insert(0, str(HERE))
estimates, evaluate, exploration, first_step, pictures, report, sections, table = map(
    importlib.import_module,
    ("estimates", "evaluate", "exploration", "first_step", "pictures", "report", "sections", "table"),
)

TABLE = table.read()
EVERY = [(row.name, method) for row in TABLE.experiments.values() for method in row.methods]


@functools.cache
def whole_page():
    """docs/results.md as the kept results make it."""
    return report.page(list(TABLE.experiments.values()), TABLE.methods)


@pytest.mark.parametrize("experiment, method", EVERY)
def test_every_run_has_options_that_main_takes(experiment, method):
    config = parse_options([*TABLE.options(experiment, method), "--seed", "1"])
    assert config.num_batches == TABLE.experiments[experiment].iterations
    assert config.neuromodulation == method.startswith("nm_")
    assert (config.outer_step, config.maml) == ("ppo" if method.endswith("_ppo") else "trpo", method == "maml")
    if method.startswith("nm_"):
        gate, _, bias = re.sub("_(ppo|credit)$", "", method.removeprefix("nm_")).partition("_")
        assert (config.nm_gate, config.nm_gate_bias) == (gate, float(bias or 0))
    assert config.match_params == ("matched" in method)
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
        with pytest.raises(UserError) as caught:
            table.read(path)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown experiment 'maze'; known: all, ctgraph_d2"):
        TABLE.chosen(["maze"])


def test_long_rows_are_run_when_they_are_named():
    names = [row.name for row in TABLE.chosen([])]
    assert {"ctgraph_d2", "half_cheetah_dir", "ml45_51"} <= set(names) and not {"half_cheetah_vel", "ml45"} & set(names)
    assert TABLE.chosen(["all"]) == list(TABLE.experiments.values())
    assert [row.name for row in TABLE.chosen(["ml45", "navigation"])] == ["navigation", "ml45"]


def test_results_and_runs_of_other_options_are_refused(tmp_path):
    row = TABLE.experiments["ctgraph_d2"]
    runs, results = tmp_path / "runs", tmp_path / "results"
    wanted = " ".join(TABLE.options(row.name, "nm_hard"))
    kept, begun = results / row.name / "nm_hard/3.json", runs / row.name / "nm_hard/3/options"
    for path in (kept, begun):
        path.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"options": wanted}), encoding="utf-8")
    begun.write_text(f"{wanted}\n", encoding="utf-8")
    TABLE.check(row, results, runs)
    begun.write_text(wanted.replace("--fast-lr 0.5", "--fast-lr 0.4"), encoding="utf-8")
    with pytest.raises(UserError, match=r"nm_hard/3/options: is of a run with other options than the table's"):
        TABLE.check(row, results, runs)
    TABLE.check(row, results)
    begun.unlink()
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"3\.json: expected what studies/evaluate\.py writes"):
        TABLE.check(row, results, runs)
    assert kept.read_text(encoding="utf-8") == "{}"


def test_the_policies_that_are_kept_are_listed():
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    listed = page.partition("## Policies that are kept")[2].partition("\n## ")[0]
    assert_alike("\n".join(line for line in listed.splitlines() if line.startswith("|")),
                 "\n".join(report.policies()).strip("\n"))  # fmt: skip
    # README evaluates the median seed.
    (line,) = (line for line in listed.splitlines() if "`ctgraph_d2/nm_hard`" in line)
    assert "| 4: 0.88 | 0.88 (" in line and "ctgraph_d2/nm_hard/4/policy.pt" in documents.PAGES["README.md"]


def test_a_policy_is_kept_with_all_that_loading_it_needs(tmp_path):
    run, kept = tmp_path / "run", tmp_path / "7"
    shutil.copytree(ROOT / "results/ctgraph_d2/nm_hard/4", run)
    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"logdir": "/home/me", "savedir": "/home/me"})
    evaluate.keep(run, run / "policy.pt", kept)
    assert {path.name for path in kept.iterdir()} == {"config.json", "policy.pt", "ctgraph_d2.json"}
    assert read_json(kept / "config.json") == config
    assert rl.load(kept).sample_tasks()[0].keys() == {"leaf"}


def test_results_stay_small():
    assert sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file()) < 20e6


def test_what_is_kept_is_of_the_table():
    found = sorted((ROOT / "results").glob("*/*/*.json"))
    for path in found:
        if not path.stem.isdecimal() or path.parts[-3] == "mechanism_d3":  # of studies/mechanism.py
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        experiment, method = path.parts[-3:-1]
        row = TABLE.experiments[experiment]
        assert (content["experiment"], content["method"], content["seed"]) == (experiment, method, int(path.stem))
        assert content["options"] == " ".join(TABLE.options(experiment, method))
        assert len(content["curves"]["after_update"]) == content["iterations"] == row.iterations
        assert np.shape(content["test"]["returns"])[1] == row.tasks


def test_the_page_says_what_the_results_say():
    # Numbers may differ in their last digit, where another processor rounds a tie the other way.
    expected = whole_page()
    assert_alike((ROOT / "docs/results.md").read_text(encoding="utf-8"), expected)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ('{"options": "', "3.json: expected what studies/evaluate.py writes"),
        ('{"options": "--seed 1"}', "3.json: is of a run with other options than the table's"),
    ],
)
def test_results_that_are_cut_or_of_other_options_are_not_reported(tmp_path, monkeypatch, capsys, content, complaint):
    path = tmp_path / "navigation/nm_hard/3.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    for name in ("PAGE", "FRONT", "PICTURES"):
        monkeypatch.setattr(report, name, tmp_path / "written")
    assert report.main(tmp_path) == 2 and not (tmp_path / "written").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"report.py: {tmp_path}") and complaint in line


def test_what_is_said_by_hand_quotes_the_tables():
    interval = re.compile(r"−?[\d.]+ \[−?[\d.]+, −?[\d.]+\]")
    written = [path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.md"))]
    generated = whole_page()
    for text in written:
        generated = generated.replace(text.rstrip("\n"), "")
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = front.partition(report.BEGIN)
    quoted = interval.findall("".join([*written, before, rest.partition(report.END)[2]]))
    assert quoted and [one for one in quoted if one not in generated] == []


def test_the_front_page_says_what_the_results_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = text.partition(report.BEGIN)[2].partition(report.END)[0]
    assert_alike(found.strip("\n"), "\n".join(report.front(TABLE.of_the_paper(), TABLE.methods)).strip("\n"))


def test_the_front_page_compares_what_the_paper_proposes(tmp_path):
    row = TABLE.experiments["navigation"]
    begin = "| 2D navigation | hard gates, as published, minus plain CAVIA | "

    def line():
        return report.front([row], TABLE.methods, tmp_path)[2]

    def not_run():
        return report.front([row], TABLE.methods, tmp_path)[-2] == "Not run at the paper's length: 2D navigation."

    def keep(method, shifts):
        for seed, shift in enumerate(shifts, 1):
            path = tmp_path / row.name / method / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(made_up(shift, [seed])[seed]), encoding="utf-8")

    assert not_run()
    keep("nm_hard", [1.0, 1.1, 1.2])
    assert not_run()
    # After one update all are 0; after the last −1, −0.9, −0.8, and 4.303·0.1/√3 = 0.248. What gains more is not named.
    keep("cavia", [2.0, 2.0, 2.0])
    keep("nm_soft_2", [3.0, 3.0, 3.1])
    assert line() == f"{begin}0.00 | **−0.90 [−1.15, −0.65]** | 3 | 201 of 501 |"


NUMBER = re.compile(r"−?\d+\.\d+")


def assert_alike(found, expected):
    assert NUMBER.sub("#", found).splitlines() == NUMBER.sub("#", expected).splitlines()
    for left, right in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        unit = 10.0 ** -len(right.partition(".")[2])
        assert abs(float(left.replace("−", "-")) - float(right.replace("−", "-"))) < 1.01 * unit


CURVES = {"before_update": [0.0] * 3, "after_update": [1.0] * 3, "kl": [0.01, 0.0, 0.02, None]}
MADE = {
    "commit": "0123456789",
    "processor": "a processor",
    "iterations": 3,
    "seconds": {"sampling": 400, "learning": 200},
}


def made_up(shift, seeds, updates=2):
    """Results whose mean over tasks after the last update is shift + seed."""
    returns = {seed: [[0.0, 0.0]] * updates + [[shift + seed - 1.0, shift + seed + 1.0]] for seed in seeds}
    return {seed: {"test": {"returns": values}, "curves": CURVES, **MADE} for seed, values in returns.items()}


def test_levels_are_written_as_their_number_allows():
    assert comparisons.level([]) == comparisons.level([None]) == ""
    assert comparisons.level([1.5]) == "1.50" and comparisons.level([1.5, -0.004]) == "1.50; 0.00"
    # Mean 2 of 1, 2, 3 with standard deviation 1: t(0.975, 2) = 4.303, 4.303/√3 = 2.484.
    assert comparisons.level([1.0, 2.0, 3.0]) == "2.00 [−0.48, 4.48]"
    # A quarter of 5, rounded down, is 1 at either end: the mean of 1, 2 and 3; the interval is a bootstrap's.
    assert comparisons.level([0.0, 1.0, 2.0, 3.0, 100.0]).startswith("2.00 [")
    assert comparisons.level([1.0] * 5) == "1.00"


def test_differences_are_paired_by_seed_and_have_students_interval():
    # Seeds 2, 3 and 4 are shared and differ by 0.5, 0.6 and 0.7: 0.6 ± 4.303·0.1/√3 = 0.248; t = 0.6√3/0.1 = 10.39,
    # and with 2 degrees of freedom p = 1 − t/√(2 + t²) = 0.00913. Better in 3 of 3: Wilson's lower end 3/(3 + 1.96²).
    ours = {seed: made_up(shift, [seed])[seed] for seed, shift in ((1, 9.0), (2, 1.5), (3, 1.6), (4, 1.7))}
    found = sections.difference(ours, made_up(1.0, [2, 3, 4, 5]), -1)
    assert found.values == pytest.approx((0.5, 0.6, 0.7)) and str(found) == "0.60 [0.35, 0.85]"
    assert found.p == pytest.approx(0.00913, abs=1e-5) and found.improvement == "1.00 [0.44, 1.00]"
    # Too few seeds: no test, so no claim. Differences that are all equal are certain, or nothing; with no interval.
    two = sections.difference(ours, made_up(1.0, [2, 3]), -1)
    assert (two.p, two.improvement, str(two)) == (None, "", "0.50; 0.60")
    same = sections.difference(ours, ours, -1)
    assert (same.p, str(same)) == (1.0, "0.00")
    higher = sections.difference(made_up(2.0, [1, 2, 3]), made_up(1.0, [1, 2, 3]), -1)
    assert (higher.p, str(higher)) == (0.0, "1.00")
    assert str(sections.difference(ours, {}, -1)) == ""


def test_holms_correction_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04; and 0.03, 0.03 times 2, 1: the second is not smaller.
    np.testing.assert_allclose(comparisons.holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(comparisons.holm([0.03, 0.03]), [0.06, 0.06])
    assert comparisons.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and len(comparisons.holm([])) == 0


def test_verdicts_stand_against_all_comparisons_at_once():
    # As above, p = 0.0091 with one comparison; with six of them 0.055 is no finding any more.
    clear, unsure = comparisons.Difference((0.5, 0.6, 0.7)), comparisons.Difference((1.0, -1.0, 0.1))
    lower = comparisons.Difference((-0.5, -0.6, -0.7))
    assert comparisons.verdicts({"a": clear, "b": lower, "c": unsure}) == {"a": 1, "b": -1, "c": 0}
    many = {"a": clear} | {str(number): unsure for number in range(5)}
    assert set(comparisons.verdicts(many).values()) == {0}
    assert comparisons.verdicts({"a": comparisons.Difference((1.0, 2.0))}) == {}
    # What changes nothing in any seed is one of the comparisons, too: 2 · 0.0091 is a finding, 6 · 0.0091 is none.
    nothing, lost = comparisons.Difference((0.0,) * 5), comparisons.Difference((-1.0,) * 5)
    assert comparisons.verdicts({"a": clear, "b": nothing}) == {"a": 1, "b": 0}
    assert comparisons.verdicts({"a": lost} | {str(number): nothing for number in range(5)})["a"] == -1
    assert comparisons.verdicts({"a": clear} | {str(number): nothing for number in range(5)})["a"] == 0
    found, titles = {"a": clear, "b": lower, "c": unsure, "d": unsure}, {name: name.upper() for name in "abcd"}
    assert estimates.in_words({"a": 1, "b": -1, "c": 0, "d": 0}, found, titles) == [
        "better: A (0.60 [0.35, 0.85])", "worse: B (−0.60 [−0.85, −0.35])", "no significant difference: C; D",
    ]  # fmt: skip


def test_what_is_found_is_said_after_one_update_and_after_the_last():
    row = TABLE.experiments["navigation"]

    def runs(first, last):
        seeds = zip((1, 2, 3), first, last, strict=True)
        return {
            seed: {"test": {"returns": [[0.0] * 2, [one] * 2, [two] * 2]}, "curves": CURVES} for seed, one, two in seeds
        }

    base, up, down = [1.0, 1.0, 1.0], [2.0, 2.01, 2.02], [0.0, -0.01, -0.02]
    found = {"cavia": runs(base, base), "nm_hard": runs(up, down), "nm_soft_2": runs(down, base)}
    assert sections.sentence(row, found, TABLE.methods).splitlines()[2:] == [
        "- after 1 update, better: hard gates, as published (1.01 [0.99, 1.03])",
        "- after 1 update, worse: soft gates, bias 2 (−1.01 [−1.03, −0.99])",
        "- after the last update, worse: hard gates, as published (−1.01 [−1.03, −0.99])",
        "- after the last update, no significant difference: soft gates, bias 2",
    ]
    assert "takes 3 seeds" in sections.sentence(
        row, {"cavia": made_up(1.0, [1, 2]), "nm_hard": made_up(2.0, [1, 2])}, TABLE.methods
    )
    assert "the baseline was not run" in sections.sentence(row, {"nm_hard": runs(up, up)}, TABLE.methods)


def test_tasks_found_before_the_update_and_what_is_made_of_them():
    row = TABLE.experiments["ctgraph_d3"]

    def run(before, first, last):
        rates = [before, first, last]
        return {"test": {"returns": rates, "success": rates}, "curves": CURVES}

    base = {seed: run([0.5, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]) for seed in (1, 2, 3)}
    # One episode that succeeds is enough; seed 3 has nothing left to find.
    gated = {
        1: run([0.5, 0.01, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.5, 0.0]),
        2: run([0.5, 0.01, 0.1, 0.0], [1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
        3: run([0.5, 0.01, 0.1, 0.2], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]),
    }
    lines = exploration.exploration(row, {row.baseline: base, "nm_hard": gated}, TABLE.methods)
    # Half, three quarters and all minus a quarter: 0.5 ± 4.303 · 0.25 / √3.
    assert "- no significant difference: hard gates, as published" in lines
    assert lines[-3] == "| plain CAVIA with as many parameters | 0.25 |  | 1.00 | 1.00 | 0.00 | 0.00 |"
    cells = [cell.strip() for cell in lines[-2].split("|")]
    assert cells[2:4] == ["0.75 [0.13, 1.37]", "0.50 [−0.12, 1.12]"]
    # Of tasks found: (1 + 0.5)/2, (1 + 0.5 + 0)/3, 1. Of the others: (0.5 + 0)/2 and 1; seed 3 has none.
    assert cells[4].startswith("0.75 [") and cells[5] == "1.00"
    assert cells[6:8] == ["0.00; 0.00", "0.25; 1.00"]
    assert exploration.exploration(row, {row.baseline: made_up(0.0, [1])}, TABLE.methods) == []
    figure = pictures.exploration([(row, {row.baseline: base, "nm_hard": gated})], TABLE.methods)
    (panel,) = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in panel.lines if "_" not in line.get_label()}
    assert drawn["hard gates, as published"] == [[0.5, 0.375], [0.75, 0.375], [1.0, 1.0]]


def test_checks_are_differences_to_the_policy_as_it_is():
    row = TABLE.experiments["ctgraph_d3"]

    def run(seed, cka, swapped):
        entry = {"cka": cka, "null": 0.01, "constant_gates": 0.5, "flips_between_tasks": [None, 0.25]}
        return {
            "test": {"returns": [[0.0], [0.5 + seed]]}, "similarity": {"layer1": entry},
            "checks": {sections.SWAPPED: {"returns": [[0.0], [0.5 + seed + swapped]]}},
        }  # fmt: skip

    base = {seed: run(seed, 0.99, -0.1) for seed in (1, 2, 3)}
    found = {
        row.baseline: {seed: content | {"checks": {}} for seed, content in base.items()},
        "nm_hard": {seed: run(seed, 0.80 + 0.01 * seed, -0.3 + 0.01 * seed) for seed in (1, 2, 3)},
    }
    lines = sections.representations(row, found, TABLE.methods)
    assert "- less alike: hard gates, as published (−0.17 [−0.19, −0.15])" in lines
    last = lines[-2]
    assert "| 0.82 [0.80, 0.84] | −0.17 [−0.19, −0.15] | 0.01 | 0.50 | 0.25 |" in last
    lines = sections.interventions(found, TABLE.methods)
    assert "- loses: hard gates, as published (−0.28 [−0.30, −0.26])" in lines
    assert lines[-2] == "| hard gates, as published | 2.50 [0.02, 4.98] | −0.28 [−0.30, −0.26] |"
    # Results that are older than the row's `checks` have none.
    older = {"nm_soft_2": made_up(1.0, [1, 2])}
    assert sections.checked(row, found, TABLE.methods)[-2] == lines[-2]
    assert sections.checked(row, found | older, TABLE.methods)[-3:] == [
        "", "Without representations and interventions: 2 runs.", "",
    ]  # fmt: skip
    assert sections.checked(row, older, TABLE.methods) == ["Without representations and interventions: 2 runs.", ""]


def test_the_first_step_is_compared_with_as_many_parameters(tmp_path):
    assert report.first_steps(TABLE.methods, tmp_path) == []
    methods = {
        method: {
            "parameters": 1234,
            "seeds": {
                str(seed): {
                    "accepted": seed < 3,
                    "kl": 0.009,
                    "own": own + 0.001 * seed * own,
                    "fresh": own if seed == 2 else -own,
                }
                for seed in (1, 2, 3)
            },
        }
        for method, own in (("cavia_matched", 0.04), ("nm_soft", 0.07))
    }
    (tmp_path / "first_step.json").write_text(json.dumps({"commit": "0", "methods": methods}), encoding="utf-8")
    lines = report.first_steps(TABLE.methods, tmp_path)
    # 0.03·(1 + 0.001·(1, 2, 3)).
    own, fresh = (lines.index(f"On {which} it gains, compared with plain CAVIA with as many parameters,")
                  for which in ("its own episodes", "fresh ones"))  # fmt: skip
    assert lines[own + 2] == "- more: soft gates, as published (0.030 [0.030, 0.030])"
    assert lines[fresh + 2] == "- no significant difference: soft gates, as published"
    assert lines[-2].startswith("| soft gates, as published | 1,234 | 2 of 3 | 0.070 [")


def test_the_first_step_is_measured_on_its_own_episodes_and_on_fresh_ones():
    config = Config(env_name="2DNavigation-v0", hidden_size=16, fast_batch_size=10, meta_batch_size=4, num_workers=1)
    found, num_params = first_step.measure(config)
    assert found["accepted"] and 0 < found["kl"] <= config.max_kl and num_params > 0
    # It is the step that improves its own episodes; what it does to others is another number.
    assert found["own"] > 0 and found["fresh"] != found["own"]


def test_what_was_not_run_says_so():
    row = TABLE.experiments["navigation"]
    lines = "\n".join(sections.section(row, {"cavia": made_up(1.0, [1, 2])}, TABLE.methods))
    assert "| hard gates, as published | not run |" in lines and "| plain CAVIA | 2 of 5 |" in lines
    # Two of four outer steps have a divergence.
    assert "| plain CAVIA | 2 of 5 | 0.00; 0.00 | 0.00; 0.00 | 2.00; 3.00 | 0.50; 0.50 | 0.00; 0.00 |" in lines
    assert "Not run." in sections.section(row, {}, TABLE.methods)
    # 3 iterations of 600 s.
    assert (
        "Made with the code of 0123456. Hours of training a run, without evaluations, with others beside it: 0.50 on a "
        "processor." in lines
    )


def test_what_runs_were_made_and_continued_with_is_named():
    (run,) = made_up(1.0, [1]).values()
    later = {"iteration": 2, "git_commit": "abcdefabcd+", "versions": {}, "processor": "another", "gpu": "a GPU"}
    unknown = {"commit": None, "processor": None}
    longer = run | {"commit": "0123456789+", "iterations": 6}
    runs = {1: run, 2: run | {"continued": [later]}, 3: run | unknown, 4: longer}
    assert sections.made({"cavia": runs}) == (
        "Made with the code of 0123456, an unknown commit, 0123456+, abcdefa+. Hours of training a run, without "
        "evaluations, with others beside it: 0.50 to 1.00 on a processor; 0.50 on a processor and then another with "
        "a GPU; 0.50 on an unknown processor."
    )


def test_a_method_has_one_look_in_all_pictures():
    """And many methods are split, with the baseline in each row."""
    row, looks = TABLE.experiments["ctgraph_d2"], pictures.looks(TABLE.methods)
    found = {method: made_up(1.0, [1, 2, 3]) for method in row.methods}
    found["nm_hard"] = {
        seed: run | {"test": run["test"] | {"success": [[0.0, 1.0]] * 3}}
        for seed, run in made_up(1.0, range(1, 6)).items()
    }
    split = pictures.split(row, found)
    assert {method for methods in split for method in methods} == set(row.methods) and len(split) == 3
    assert all(methods[0] == row.baseline for methods in split) and pictures.split(row, {"cavia": {}}) == [["cavia"]]
    figure = pictures.learning(row, found, TABLE.methods)
    assert "one seed" in {text.get_text() for text in figure.legends[0].get_texts()}
    drawn = {}
    figures = [figure, pictures.exploration([(row, {"nm_hard": found["nm_hard"]})], TABLE.methods)]
    for line in (line for one in figures for panel in one.axes for line in panel.lines):
        if not line.get_label().startswith("_"):
            drawn.setdefault(line.get_label().partition(" (")[0], set()).add((line.get_color(), line.get_marker()))
    assert drawn == {
        TABLE.methods[method].title: {(looks[method].colour, looks[method].marker)} for method in row.methods
    }
    assert len({look.marker for look in looks.values()}) == len(looks) and style.look(0) == looks["cavia"]


@pytest.mark.slow
def test_the_workflow_trains_evaluates_and_takes_up_what_was_stopped(tmp_path):
    pytest.importorskip("snakemake", reason="make test-slow installs it")
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    for folder in ("results", "docs/results.md"):
        subprocess.run(["rm", "-rf", clone / folder], check=True)
    toml = clone / "studies/experiments.toml"
    text = (
        toml.read_text(encoding="utf-8").replace("iterations = 201", "iterations = 2").replace("[1, 2, 3, 4, 5]", "[1]")
    )
    toml.write_text(text.replace("--hidden-size 100", "--hidden-size 8"), encoding="utf-8")

    def workflow(experiment, *more):
        command = [sys.executable, "-m", "snakemake", "--snakefile", "studies/Snakefile", "--cores", "2"]
        command += [*more, "--config", f"experiments={experiment}", "--", "all"]
        environment = os.environ | {"PYTHONPATH": str(clone)}
        return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)

    done = workflow("navigation")
    assert done.returncode == 0, done.stderr
    kept = sorted((clone / "results/navigation").glob("*/1.json"))
    assert [path.parts[-2] for path in kept] == ["cavia", "nm_hard", "nm_soft_2"]
    assert all((path.with_suffix("") / "policy.pt").is_file() for path in kept)
    assert "| 2D navigation | plain CAVIA |" in (clone / "docs/results.md").read_text(encoding="utf-8")
    before = [path.read_bytes() for path in kept]
    assert workflow("navigation").returncode == 0 and [path.read_bytes() for path in kept] == before
    # Options changed under the same name: nothing is overwritten.
    toml.write_text(toml.read_text(encoding="utf-8").replace("--fast-lr 0.5", "--fast-lr 0.4"), encoding="utf-8")
    refused = workflow("navigation")
    assert refused.returncode != 0 and "other options than the table's" in refused.stderr
    assert [path.read_bytes() for path in kept] == before
    # Nor is it shown beside other experiments, and they need not be trained to find that out: a dry run tells it, on
    # standard output.
    refused = workflow("ctgraph_d2", "--dry-run")
    assert refused.returncode != 0 and "other options than the table's" in refused.stdout
    assert "unknown experiment 'maze'" in workflow("maze").stderr
