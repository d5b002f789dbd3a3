"""The pages that are written from the results of the experiments."""

import functools
import importlib
import json
import re
import sys

import pytest

from rl.evaluation import comparisons
from rl.plots import style
from tests.support import documents
from tests.support.helpers import ROOT

HERE = ROOT / "studies"
sys.path.insert(0, str(HERE))
estimates, measures, mechanism, pictures, provenance, report, sections, table, words = map(
    importlib.import_module,
    ("estimates", "measures", "mechanism", "pictures", "provenance", "report", "sections", "table", "words"),
)

TABLE = table.read()


@functools.cache
def written():
    """The pages as the kept results make them."""
    return report.pages(TABLE)


def test_the_policies_that_are_kept_are_listed():
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    listed = page.partition("## Policies that are kept")[2].partition("\n## ")[0]
    assert_alike("\n".join(line for line in listed.splitlines() if line.startswith("|")),
                 "\n".join(report.policies()).strip("\n"))  # fmt: skip
    # README evaluates the median seed.
    (line,) = (line for line in listed.splitlines() if "`ctgraph_d2/nm_hard`" in line)
    assert "| 4: 0.88 | 0.88 (" in line and "ctgraph_d2/nm_hard/4/policy.pt" in documents.PAGES["README.md"]


def test_the_pages_say_what_the_results_say():
    # Numbers may differ in their last digit, where another processor rounds a tie the other way.
    pages = written()
    assert {f"results/{path.name}" for path in (ROOT / "docs/results").iterdir()} == {
        *pages.keys() - {"results.md", "mechanism.md"}, "results/glossary.md"
    }  # fmt: skip
    for path, expected in pages.items():
        assert_alike((ROOT / "docs" / path).read_text(encoding="utf-8"), expected)


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
    for name in ("PAGES", "FRONT", "COMMANDS"):
        monkeypatch.setattr(report, name, tmp_path / "written")
    assert report.main(tmp_path) == 2 and not (tmp_path / "written").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"report.py: {tmp_path}") and complaint in line


def test_what_is_written_by_hand_has_its_numbers_from_the_results():
    """No interval is typed, nothing but what no experiment shows is left out, and what is claimed beside the numbers
    still holds: where it does not, read the pages again.
    """
    for path in HERE.glob("*.md"):
        assert re.findall(r"\d \[[^]]*\d\]|p = \d", path.read_text(encoding="utf-8")) == []
    template = (HERE / "results.md").read_text(encoding="utf-8")
    assert written()["results.md"].count("\n- ") == template.count("\n- ")
    assert not re.search(r"[{}]", "".join(written().values()))
    # The code of some runs did not record their GPU; what was written into their files says that it was.
    assert "with an NVIDIA H200 (entered by hand)" in written()["results/half_cheetah_dir.md"]

    kept = {name: measures.load(row, ROOT / "results") for name, row in TABLE.experiments.items()}
    families = report.endpoints(TABLE, kept)

    significant = {name for name, one in families.items() if one.p.get(name, 1) < 0.05}
    assert {name for name in significant if TABLE.experiments[name].paper_iterations} == {
        "ctgraph_d3",
        "navigation_501",
    }


def test_the_front_page_says_what_the_results_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = text.partition(report.BEGIN)[2].partition(report.END)[0]
    assert_alike(found.strip("\n"), "\n".join(report.front(TABLE)).strip("\n"))


def test_the_front_page_compares_what_the_paper_proposes(tmp_path):
    row = TABLE.experiments["navigation"]

    def keep(method, shifts):
        for seed, shift in enumerate(shifts, 1):
            path = tmp_path / row.name / method / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(runs([shift], [0.0])[1]), encoding="utf-8")

    keep("nm_hard", [1.0, 1.1, 1.2])
    assert report.front(TABLE, tmp_path) == []
    # After one update −1, −0.9, −0.8, and 4.303·0.1/√3 = 0.248. What gains more is not named.
    keep("cavia", [2.0, 2.0, 2.0])
    keep("nm_soft_2", [3.0, 3.0, 3.1])
    assert report.front(TABLE, tmp_path)[2].split(" | ")[1:] == [
        "hard gates, as published, minus plain CAVIA", "**−0.90 [−1.15, −0.65]**", "0.004", "3", "201 / 501 |"
    ]  # fmt: skip


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


def test_a_milestone_is_reached_when_the_mean_of_ten_iterations_is_as_high():
    curve = {"curves": {"after_update": [0.0] * 9 + [100.0] * 20}}
    # Half of the ten from 5 to 14 are 100.
    assert measures.reached(curve, 50) == 13 and measures.reached(curve, 100) == 18
    assert measures.reached(curve, 101) is None and measures.reached({"curves": {"after_update": [9.0] * 5}}, 1) is None
    row = TABLE.experiments["half_cheetah_dir"]._replace(milestone=50, pace=None)
    found = {"cavia": {1: curve, 2: {"curves": {"after_update": [1.0] * 20}}}}
    assert "| plain CAVIA | 13; not |" in sections.soon(row, found, TABLE.methods)
    lines = sections.soon(row._replace(pace={"cavia": 2.5}), found | {"nm_soft": {1: curve}}, TABLE.methods)
    assert "| plain CAVIA | 13; not | 32; not |" in lines and "| soft gates, as published | 13 |  |" in lines


def test_one_test_an_experiment_and_families_of_the_others():
    # t = 0.6√3/0.1 = 10.39: p = 0.0091 of one test, 0.018 of two, 0.055 of six.
    clear, unsure = comparisons.Difference((0.5, 0.6, 0.7)), comparisons.Difference((1.0, -1.0, 0.1))
    assert estimates.Family({"a": clear}).shown_p("a") == "0.009"
    two = estimates.Family({"a": clear, "b": unsure, "few": comparisons.Difference((1.0, 2.0))})
    assert (two.shown_p("a"), two.text("a"), two.text("b")) == ("0.018", "**0.60 [0.35, 0.85]**", "0.03 [−2.45, 2.52]")
    assert (two.shown_p("few"), two.text("few"), two.text("none"), two.tests) == ("", "1.00; 2.00", "", 2)
    many = {str(number): comparisons.Difference((1.0, -1.0, number)) for number in range(5)}
    assert estimates.Family(many | {"a": clear}).text("a") == "0.60 [0.35, 0.85]"
    # The same numbers are one test.
    assert estimates.Family({"a": clear, "b": clear}).shown_p("a") == "0.009"
    assert estimates.secondary({"of two": two, "of none": estimates.Family()}) == [
        "*Secondary family*: of two (2 tests).", ""
    ]  # fmt: skip


def runs(first, last, **more):
    """Results of seeds 1, 2, … with these means after one update and after the last."""
    return {
        seed: {"test": {"returns": [[0.0] * 2, [one] * 2, [two] * 2]}, "curves": CURVES, **MADE, **more}
        for seed, (one, two) in enumerate(zip(first, last, strict=True), 1)
    }


def test_the_primary_endpoint_is_in_no_other_family():
    row = TABLE.experiments["navigation"]
    found = {
        "cavia": runs([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        "nm_hard": runs([2.0, 2.01, 2.02], [0.0, -0.01, -0.02]),
        "nm_soft_2": runs([0.0, -0.01, -0.02], [1.0, 1.0, 1.0]),
    }
    family = estimates.Family({row.name: measures.primary(row, found), "other": comparisons.Difference((1, -1, 0))})
    text = "\n".join(sections.page(row, found, TABLE.methods, family))
    assert "minus plain CAVIA: 1.01 [0.99, 1.03], p < 0.001 (Holm's correction over 2 experiments): better." in text
    assert "*Secondary families*: the other methods after 1 update (1 test); differences after the last update" in text
    assert "; hard gates, as published, minus each of the other methods, after 1 update (1 test)." in text
    lines = [line for line in text.partition("## Differences")[2].splitlines() if line.startswith("| ")]
    assert lines[-2].split(" | ")[1:6] == [
        "**1.01 [0.99, 1.03]**", "< 0.001 (primary)", "3 of 3", "**−1.01 [−1.03, −0.99]**", "< 0.001"
    ]  # fmt: skip
    # Where more updates change no digit, they are not tested again.
    same = {method: runs([run["test"]["returns"][1][0] for run in some.values()] , [
        run["test"]["returns"][1][0] + 1e-4 for run in some.values()]) for method, some in found.items()}  # fmt: skip
    text = "\n".join(sections.compared(row, same, TABLE.methods))
    assert "is not tested again" in text and "differences after the last update" not in text
    # Nor is one of them, where another method's changes.
    same["nm_soft_2"] = found["nm_soft_2"]
    assert list(sections.changed_later(row, same)) == ["nm_soft_2"]
    # A row that a longer one stands in for has no primary endpoint.
    assert "| hard gates, as published | 1.01 [0.99, 1.03] | not tested | 3 of 3 |" in text


def test_methods_that_adapted_from_other_numbers_of_episodes_are_not_compared():
    row, ones = TABLE.experiments["navigation"], [1.0, 1.0, 1.0]
    found = {
        "cavia": runs(ones, ones, test_episodes=20),
        "nm_hard": runs([2.0, 2.1, 2.2], ones, test_episodes=20),
        "nm_soft_2": runs([5.0, 5.1, 5.2], ones, test_episodes=40),
    }
    assert list(sections.family(row, found, measures.after)) == ["nm_hard"] and not sections.rivals(row, found)
    text = "\n".join(sections.body(row, found, TABLE.methods))
    assert "| soft gates, bias 2 (40 episodes) | 3 of 5 | 0.00 | 5.10 [" in text
    differences = text.partition("## Differences")[2]
    assert differences.count("soft gates, bias 2") == 1
    assert "number of episodes (20), and more of them find more: soft gates, bias 2 (40 episodes)." in differences


def test_the_papers_experiments_are_one_family_each_with_its_longest_row():
    short, long = TABLE.experiments["navigation"], TABLE.experiments["navigation_501"]
    ours = short._replace(name="ours", options="--env-name other", paper_iterations=0)
    some = table.Table({row.name: row for row in (short, long, ours)}, TABLE.methods)
    made = {
        method: runs([shift, shift + 1.0, shift], [0.0] * 3) for method, shift in (("cavia", 1.0), ("nm_hard", 2.0))
    }
    found = report.endpoints(some, {"navigation": made, "navigation_501": {}, "ours": made})
    assert [(name, one.tests) for name, one in found.items()] == [("navigation", 1), ("ours", 1)]
    found = report.endpoints(some, {"navigation": made, "navigation_501": made, "ours": made})
    assert list(found) == ["navigation_501", "ours"] and len(found["ours"]) == 1


@pytest.mark.parametrize(
    "name, methods, seeds, words",
    [
        ("navigation", ["cavia", "nm_hard"], 1, "It is not tested"),
        ("navigation", ["nm_hard"], 3, "not run yet"),
        ("navigation_bias", ["nm_soft", "nm_soft_1"], 3, "*Secondary families*"),
        ("ctgraph_d4", ["cavia_matched", "nm_hard"], 2, "The best of many noisy values is biased upwards"),
    ],
)
def test_a_page_copes_with_what_is_there(name, methods, seeds, words):
    row, success = TABLE.experiments[name], {"success": [[0.0, 1.0]] * 3}
    more = {"curves": CURVES | {"after_update": [0.0] * 31}}
    found = {method: runs([1.0 + 0.1 * place] * seeds, [2.0] * seeds, **more) for place, method in enumerate(methods)}
    for run in found[methods[0]].values():
        run["test"] |= success
        run["halved"] = run["test"]
    family = estimates.Family({name: measures.primary(row, found)}) if row.proposed != row.baseline else None
    text = "\n".join(sections.page(row, found, TABLE.methods, family))
    assert words in text and "nan" not in text
    # Success before and after each update, and the same with the rate halved.
    half = comparisons.level([0.5] * seeds)
    assert text.count(f"{TABLE.methods[methods[0]].title} | {half} | {half} | {half} |") == 2
    figure = pictures.learning(row, found, TABLE.methods)
    assert len(figure.axes) == 2 + (len(methods) == 1)


def test_the_best_checkpoint_is_one_of_every_tenth():
    # The value of iteration 1 is of the policy after iteration 0, that of 11 of the one after 10.
    curve = [9.0, 1.0, *[0.5] * 9, 2.0, *[0.25] * 9, 1.5, 99.0]
    run = {"curves": {"after_update": curve}}
    assert (measures.best_checkpoint(run), measures.after_the_best(run)) == (2.0, 0.25)


def test_hand_written_text_is_filled_in_or_left_out():
    found = {"cavia": runs([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])}
    primaries = {"navigation": estimates.Family({"navigation": comparisons.Difference((0.5, 0.6, 0.7))})}
    figures = words.Figures(TABLE.experiments, {"navigation": found}, primaries, {"table": ["| a |"]})
    text = """# Title {kept}

- level {level navigation cavia return_1}, highest {highest navigation cavia return_1 3},
  seed 2 {seed navigation cavia 2 return_1}, {count navigation cavia return_last 1}
- gone {difference navigation nm_hard cavia return_1}
- training {curve navigation cavia 1 0 1}, {curves navigation cavia 0 1}; {primary better}

{table}

No one is worse: {primary worse}.
"""
    assert figures.filled(text) == (
        "# Title {kept}\n\n- level 2.00 [−0.48, 4.48], highest 3.000, seed 2 2.00, 3 of 3\n"
        "- training 1.00, 1.00 in 3 runs; 2D navigation (0.60 [0.35, 0.85], p = 0.009)\n\n| a |\n"
    )


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
    lines = sections.tasks_found(row, {row.baseline: base, "nm_hard": gated}, TABLE.methods)
    # Half, three quarters and all minus a quarter: 0.5 ± 4.303 · 0.25 / √3; t = 3.46, p = 0.074.
    assert lines[-3] == "| plain CAVIA with as many parameters | 0.25 |  |  | 1.00 | 1.00 | 0.00 | 0.00 |"
    cells = [cell.strip() for cell in lines[-2].split("|")]
    assert [cells.pop(2), cells.pop(2), cells[2]] == ["0.75 [0.13, 1.37]", "0.50 [−0.12, 1.12]", "0.074"]
    # Of tasks found: (1 + 0.5)/2, (1 + 0.5 + 0)/3, 1. Of the others: (0.5 + 0)/2 and 1; seed 3 has none.
    assert cells[3].startswith("0.75 [") and cells[4] == "1.00"
    assert cells[5:7] == ["0.00; 0.00", "0.25; 1.00"]
    assert sections.tasks_found(row, {row.baseline: made_up(0.0, [1])}, TABLE.methods) == []
    panel = pictures.learning(row, {row.baseline: base, "nm_hard": gated}, TABLE.methods).axes[2]
    assert panel.lines[-1].get_xydata().tolist() == [[0.5, 0.375], [0.75, 0.375], [1.0, 1.0]]


def test_checks_are_differences_to_the_policy_as_it_is():
    row = TABLE.experiments["ctgraph_d3"]

    def run(seed, cka, frozen):
        entry = {"cka": cka, "null": 0.01, "constant_gates": 0.5, "flips_between_tasks": [None, 0.25]}
        return {
            "test": {"returns": [[0.0], [0.5 + seed]]}, "similarity": {"layer1": entry},
            "checks": {sections.FROZEN: {"returns": [[0.0], [0.5 + seed + frozen]]}},
        }  # fmt: skip

    base = {seed: run(seed, 0.99, -0.1) for seed in (1, 2, 3)}
    found = {
        row.baseline: {seed: content | {"checks": {}} for seed, content in base.items()},
        "nm_hard": {seed: run(seed, 0.80 + 0.01 * seed, -0.3 + 0.01 * seed) for seed in (1, 2, 3)},
    }
    lines = sections.representations(row, found, TABLE.methods)
    assert "*Secondary family*: CKA of the last layer, each method minus the baseline (1 test)." in lines
    assert "| 0.82 [0.80, 0.84] | **−0.17 [−0.19, −0.15]** | 0.001 | 0.01 | 0.50 | 0.25 |" in lines[-2]
    lines = sections.interventions(found, TABLE.methods)
    assert lines[-2] == "| hard gates, as published | 2.50 [0.02, 4.98] | **−0.28 [−0.30, −0.26]** | < 0.001 |"
    # Results that are older than the row's `checks` have none.
    older = {"nm_soft_2": made_up(1.0, [1, 2])}
    assert sections.checked(row, found, TABLE.methods)[-2] == lines[-2]
    assert sections.checked(row, found | older, TABLE.methods)[-3:] == [
        "", "Without representations and interventions: 2 runs.", "",
    ]  # fmt: skip
    assert sections.checked(row, older, TABLE.methods) == ["Without representations and interventions: 2 runs.", ""]


def test_the_table_of_what_steps_gain_tells_own_tasks_from_others(tmp_path):
    assert report.step_gains(TABLE, tmp_path) == []
    steps = [[0.008, -0.001], [0.009, 0.001], [0.01, 0.003]]
    checkpoints = {number: {"returns": [5.0, 7.0], "as in the run": steps} for number in ("50", "100")}
    kept = {"ml1_reach/nm_soft/2": {"checkpoints": checkpoints}}
    (tmp_path / "step_gain.json").write_text(json.dumps(kept), encoding="utf-8")
    head, _, first, second, _ = report.step_gains(TABLE, tmp_path)
    assert head.endswith("| as in the run (3 steps): its own tasks | others |")
    cells = "5.00 → 7.00 | 9.0 [6.5, 11.5] | 1.0 [−4.0, 6.0] |"  # thousandths; Student's interval of three
    assert first == f"| soft gates, as published, seed 2 | 50 | {cells}"
    assert second == f"|  | 100 | {cells}"


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
    # 0.03·(1 + 0.001·(1, 2, 3)); on fresh ones −0.03, 0.03, −0.03.
    cells = lines[-2].split(" | ")
    assert cells[:3] == ["| soft gates, as published", "1,234", "2 of 3"] and cells[3].startswith("0.070 [")
    assert cells[4:6] == ["**0.030 [0.030, 0.030]**", "< 0.001"] and cells[7].startswith("−0.010 [")


def test_what_was_not_run_says_so():
    row = TABLE.experiments["navigation"]
    lines = "\n".join(sections.body(row, {"cavia": made_up(1.0, [1, 2])}, TABLE.methods))
    assert "| hard gates, as published | not run |" in lines and "| plain CAVIA | 2 of 5 |" in lines
    # Two of four outer steps have a divergence.
    assert "| plain CAVIA | 2 of 5 | 0.00; 0.00 | 0.00; 0.00 | 2.00; 3.00 | 0.50; 0.50 | 0.00; 0.00 |" in lines
    assert "2D navigation (201 iterations)" in report.others(TABLE, {name: {} for name in TABLE.experiments}, {})[0]
    # 3 iterations of 600 s.
    assert (
        "Made with the code of 0123456. Hours of training of one run, without evaluations, while others ran on the "
        "same machine: 0.50 on a processor." in lines
    )


def test_what_runs_were_made_and_continued_with_is_named():
    (run,) = made_up(1.0, [1]).values()
    later = {"iteration": 2, "git_commit": "abcdefabcd+", "versions": {}, "processor": "another", "gpu": "a GPU"}
    unknown = {"commit": None, "processor": None}
    longer = run | {"commit": "0123456789+", "iterations": 6}
    kept = {1: run, 2: run | {"continued": [later]}, 3: run | unknown, 4: longer | {"test_episodes": 20}}
    assert provenance.made({"cavia": kept}) == (
        "Evaluated on 2 test tasks with 20 episodes each. "
        "Made with the code of 0123456, an unknown commit, 0123456+, abcdefa+. Hours of training of one run, "
        "without evaluations, while others ran on the same machine: 0.50 to 1.00 on a processor; 0.50 on a processor "
        "and then another with a GPU; 0.50 on an unknown processor."
    )


def test_a_method_has_one_look_in_all_pictures():
    """And many methods are split, with the baseline in each row."""
    row, looks = TABLE.experiments["ctgraph_d2"], pictures.looks(TABLE.methods)
    found = {method: made_up(1.0, [1, 2, 3]) for method in row.methods}
    found["nm_hard"] = made_up(1.0, range(1, 6))
    split = pictures.split(row, found)
    assert {method for methods in split for method in methods} == set(row.methods) and len(split) == 3
    assert all(methods[0] == row.baseline for methods in split) and pictures.split(row, {"cavia": {}}) == [["cavia"]]
    del found[row.baseline]  # moved away, to be run again
    assert not any(row.baseline in methods for methods in pictures.split(row, found))
    found[row.baseline] = made_up(1.0, [1, 2, 3])
    figure = pictures.learning(row, found, TABLE.methods)
    assert "one seed" in {text.get_text() for text in figure.legends[0].get_texts()}
    drawn = {}
    figures = [figure, pictures.verdicts([(row, found)], TABLE.methods)]
    for line in (line for one in figures for panel in one.axes for line in panel.lines):
        if not line.get_label().startswith("_"):
            drawn.setdefault(line.get_label().partition(" (")[0], set()).add((line.get_color(), line.get_marker()))
    expected = {TABLE.methods[method].title: looks[method].look for method in row.methods}
    assert drawn == {title: {(look.colour, look.marker)} for title, look in expected.items()}
    assert len({(look.colour, look.marker) for look, _ in looks.values()}) == len(looks)
    # The picture of what gates buy shows changes, not methods: nothing there looks like a method.
    changes = {*zip((*style.COLOURS, style.BLACK), mechanism.MARKERS, strict=False)}
    assert not changes & {(look.colour, look.marker) for look, _ in looks.values()}
    # In a panel, no method differs from another in colour alone, nor do single points.
    for methods in (methods for row in TABLE.compared() for methods in pictures.split(row, dict.fromkeys(row.methods))):
        assert len({looks[method].look.marker for method in methods}) == len(methods)
