"""The experiments: their table, and what is kept of a run."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import rl
from rl.algorithm.jacobian import flatten
from rl.algorithm.meta_objective import MetaObjective
from rl.config import Config, parse_options
from rl.errors import UserError
from rl.files import read_json, write_json
from rl.run.setup import Setup
from tests.support import documents
from tests.support.helpers import ROOT

HERE = ROOT / "studies"
sys.path.insert(0, str(HERE))
checkpoints, evaluate, first_step, line_search, step_gain, table = map(
    importlib.import_module, ("checkpoints", "evaluate", "first_step", "line_search", "step_gain", "table")
)

TABLE = table.read()
EVERY = [(row.name, method) for row in TABLE.experiments.values() for method in row.methods]


@pytest.mark.parametrize("experiment, method", EVERY)
def test_every_run_has_options_that_main_takes(experiment, method):
    config = parse_options([*TABLE.options(experiment, method), "--seed", "1"])
    assert config.num_batches == TABLE.experiments[experiment].iterations
    assert config.neuromodulation == method.startswith("nm_")
    assert (config.outer_step, config.maml) == ("ppo" if method.endswith("_ppo") else "trpo", method == "maml")
    if method.startswith("nm_"):
        gate, _, bias = re.sub(r"(_(ppo|credit|explore|blind|loose|damping|kl\d+))+$", "", method[3:]).partition("_")
        assert (config.nm_gate, config.nm_gate_bias) == (gate, float(bias or 0))
    assert config.match_params == ("matched" in method)
    small = re.search(r"_kl0(\d+)$", method)
    assert config.max_kl == (float(f"0.0{small[1]}") if small else Config.max_kl)
    named = {
        "explore": config.explore > 0, "credit": config.exploration_credit > 0, "blind": config.nm_without_context,
        "loose": config.pre_update_kl < 1, "damping": config.cg_damping == 1,
    }  # fmt: skip
    assert named == {name: name in method.split("_") for name in named}
    assert TABLE.experiments[experiment].baseline in TABLE.experiments[experiment].methods


def test_options_are_those_of_the_documented_commands():
    # Of each experiment of the paper docs/experiments.md gives one command; nothing but these options may differ.
    commands = [parse_options(line) for line in documents.commands("main.py", "docs/experiments.md")]
    reach = [command for command in commands if command.env_name == "ML1Reach-v2"]
    commands += [dataclasses.replace(command, env_name="ML1Push-v2") for command in reach]  # "the same command with"
    free = {"seed", "expname", "num_batches", "num_workers", "neuromodulation", "nm_gate", "nm_size", "test_freq"}
    for row in TABLE.experiments.values():
        ours = {
            name: value
            for name, value in dataclasses.asdict(parse_options(shlex.split(row.options))).items()
            if name not in free
        }
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
        if not path.stem.isdecimal():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        experiment, method = path.parts[-3:-1]
        row = TABLE.experiments[experiment]
        assert (content["experiment"], content["method"], content["seed"]) == (experiment, method, int(path.stem))
        assert content["options"] == " ".join(TABLE.options(experiment, method))
        assert len(content["curves"]["after_update"]) == content["iterations"] == row.iterations
        if row.exact:
            assert content["exact"]["checkpoints"][-1] == row.iterations - 1
        else:
            assert np.shape(content["test"]["returns"])[1] == row.tasks


def test_the_first_step_is_measured_on_its_own_episodes_and_on_fresh_ones():
    config = Config(env_name="2DNavigation-v0", hidden_size=16, fast_batch_size=10, meta_batch_size=4, num_workers=1)
    found, num_params = first_step.measure(config)
    assert found["accepted"] and 0 < found["kl"] <= config.max_kl and num_params > 0
    # It is the step that improves its own episodes; what it does to others is another number.
    assert found["own"] > 0 and found["fresh"] != found["own"]


def test_a_step_gains_on_its_own_tasks_what_it_need_not_gain_on_others():
    config = Config(env_name="2DNavigation-v0", hidden_size=16, fast_batch_size=5, meta_batch_size=3, num_workers=0)
    setup = Setup(config)
    found = step_gain.measure(setup, setup.initial_params(), 12, iteration=5)
    assert len(found["as in the run"]) == len(found["cg-damping 1"]) == 4 and len(found["twice as many tasks"]) == 2
    own, others = np.transpose(found["as in the run"])
    assert (own > 0).all() and (own != others).all()
    # What the learner itself reports of the first of these steps, and of that step on the other nine tasks.
    with setup.sampler() as sampler:
        episodes = checkpoints.sampled(setup, sampler, setup.initial_params(), 5, 12)
    first, rest = ([part.tasks(*tasks) for part in episodes] for tasks in ((0, 3), (3, 12)))
    moved, metrics = setup.learner().step(setup.initial_params(), *first)
    assert own[0] == pytest.approx(metrics["trpo/improvement"], rel=1e-3)
    objective = MetaObjective(setup.learner().compute, setup.options, flatten(setup.initial_params()), rest)
    assert others[0] == pytest.approx(objective.loss - objective.evaluate(flatten(moved))[0], rel=1e-2, abs=1e-6)
    with pytest.raises(UserError, match=r"--num-tasks 11: expected at least four times .* 12"):
        step_gain.measure(setup, setup.initial_params(), 11, iteration=5)


@pytest.mark.parametrize(("max_kl", "weight"), [(0.01, 0.0), (30.0, 1.0)])
def test_the_line_search_tells_why_it_refused(max_kl, weight):
    config = Config(
        env_name="2DNavigation-v0", hidden_size=16, fast_batch_size=10, meta_batch_size=4, num_workers=1,
        max_kl=max_kl, pre_update_return=weight,
    )  # fmt: skip
    found = line_search.measure(config, 2)
    assert len(found["short"]) == 1 + bool(weight)  # after the update, and before it where that counts
    if max_kl < 1:  # a policy is smooth where a step is short
        assert found["short"][0] == pytest.approx(found["smooth"], rel=0.2)
    else:  # and no longer where it is long
        assert sum(found["refused"].values()) and set(found["refused"]) <= {"KL", "surrogate", "surrogate and KL"}


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
    assert "## 2D navigation\n" in (clone / "docs/results/appendix.md").read_text(encoding="utf-8")
    assert json.loads(kept[0].read_text(encoding="utf-8"))["test_episodes"] == 40
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
