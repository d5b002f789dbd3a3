"""test.py: what it writes, its causal checks, bad input."""

import csv
import errno
import json
import os
import re
import shutil
import signal
from multiprocessing import active_children

import numpy as np
import pytest
import torch

import rl.plots.adaptation
import rl.test
from rl.config import Config, load_config
from rl.errors import UserError
from rl.evaluation import report
from rl.evaluation.evaluate import Evaluated, Summary
from rl.evaluation.runs import grouped, read_evaluation
from rl.ranks import Ranks
from rl.run import test_request
from rl.run.checkpoint import load_policy
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from tests.support.helpers import only_run

TASKS, STEPS, EPISODES, STAGES = 6, 100, 3, 3
UNITS = 2 * (3 + 8 + 8)


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny.evaluation("navigation", "--activations", "2")


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def rewards(folder):
    return np.load(folder / "rewards.npy")


def test_returns(folder):
    found = rewards(folder)
    assert found.shape == (TASKS, STEPS, EPISODES, STAGES)
    told = results(folder)
    np.testing.assert_allclose([row["mean"] for row in told["returns"]], found.sum(axis=1).mean(axis=(0, 1)))
    np.testing.assert_allclose(told["returns_per_task"], found.sum(axis=1).mean(axis=1).T)
    assert (told["modulation"], told["context"], told["num_tasks"]) == ("normal", "normal", TASKS)
    assert "returns_normal" not in told and "success" not in told


def test_an_evaluation_with_another_seed_knows_that_of_its_run(tiny, tmp_path):
    """Also one that is made from an evaluation's folder; and a run evaluated twice is no two seeds."""
    first = tiny.evaluation("navigation", "--num-tasks", "1", "--seed", "5")
    line = [first / "config.json", first / "policy.pt", "--seed", "6", "--num-workers", "0", "--logdir", tmp_path]
    assert rl.test.main(list(map(str, line))) == 0
    for folder, seed in ((first, 5), (second := only_run(tmp_path), 6)):
        config, description = load_config(folder / "config.json")
        assert (config.seed, description["run_seed"]) == (seed, 42)
        assert read_evaluation(folder).seed == 42
    with pytest.raises(UserError, match="is of a run with seed 42, as "):
        grouped([read_evaluation(first), read_evaluation(second)], [])
    (second / "config.json").write_text(
        (second / "config.json").read_text().replace('"run_seed": 42', '"run_seed": -1')
    )
    with pytest.raises(UserError, match="run_seed: expected at least 0, got -1"):
        read_evaluation(second)


def pictured(folder, metric):
    """The rows that adaptation.csv has of a metric: value, low and high after each number of updates."""
    with open(folder / "adaptation.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"].startswith(metric)]
    return np.array([[float(row[name]) for name in ("value", "low_95", "high_95")] for row in rows])


def test_results_and_picture_show_one_interval_and_it_is_over_tasks(folder):
    told = results(folder)
    assert told["intervals"].startswith("95%, over tasks")
    per_task = rewards(folder).sum(axis=1).mean(axis=1)  # [tasks, stages]
    # t(0.975, 5) = 2.5706
    expected = 2.570582 * per_task.std(axis=0, ddof=1) / np.sqrt(TASKS)
    half = np.array([row["half_width_95"] for row in told["returns"]])
    np.testing.assert_allclose(half, expected, rtol=1e-6)
    mean, low, high = pictured(folder, "return").T
    np.testing.assert_allclose([mean - low, high - mean], [half, half], rtol=1e-6)


def test_one_task_makes_no_interval(tiny, capsys):
    capsys.readouterr()
    assert tiny.evaluate("navigation", "--num-tasks", "1", "--logdir", str(tiny.folder / "one task")) == 0
    assert capsys.readouterr().out.count(" none\n") == STAGES
    folder = only_run(tiny.folder / "one task")
    assert [row["half_width_95"] for row in results(folder)["returns"]] == [None] * STAGES
    assert (folder / "adaptation.csv").read_text(encoding="utf-8").count(",,\n") == STAGES


def test_success_rates_are_printed_and_pictured_with_one_interval(tiny, capsys):
    folder = tiny.evaluation("own")
    capsys.readouterr()
    assert tiny.evaluate("own", "--logdir", str(tiny.folder / "success")) == 0
    lines = capsys.readouterr().out.splitlines()
    header = lines.index("return on 6 tasks × 3 episodes") + 1
    columns = ["updates", "mean", "95% interval over tasks", "success rate (any step)", "success rate (final step)"]
    assert re.split(" {2,}", lines[header]) == columns
    told = results(folder)
    solved = np.load(folder / "success_metric.npy").astype(bool)  # [tasks, steps, episodes, stages]
    assert solved.any() and not solved.all()
    for updates, (line, row) in enumerate(zip(lines[header + 1 :][:STAGES], told["success"], strict=True)):
        share = solved[..., updates].any(axis=1).mean(axis=1)
        assert line.split()[:3] == [str(updates), f"{told['returns'][updates]['mean']:.3f}",
                                    f"±{told['returns'][updates]['half_width_95']:.3f}"]  # fmt: skip
        assert row["any"]["mean"] == pytest.approx(share.mean())
        # Wilson's for six tasks, whatever the number of episodes: at least 0.27 wide (all or none of them).
        assert row["any"]["high"] - row["any"]["low"] > 0.27
        for kind in ("any", "final"):
            mean, low, high = row[kind].values()
            assert f"{mean:.1%} [{low:.1%}, {high:.1%}]" in line
    expected = [list(row["any"].values()) for row in told["success"]]
    np.testing.assert_allclose(pictured(folder, "s"), expected, rtol=1e-6)


def test_success_rates_of_classes():
    """Two tasks of one class and one of another, two episodes each, one step; before and after an update."""
    told = np.array([[[False, True]], [[False, False]], [[True, True]]])
    ones = np.ones(told.shape)
    stages = tuple(Episodes(ones[..., None], ones, ones, ones, {"success": values}) for values in (told, told | True))
    tasks = [{"env_name": "push-v3"}, {"env_name": "push-v3"}, {"env_name": "reach-v3"}]
    lines = report.table(Evaluated(tasks, tuple(map(Summary.of, stages)), 0.0)).splitlines()
    assert lines[-3] == "success rate (any step), by class, after each number of updates"
    assert [line.split() for line in lines[-2:]] == [["push-v3", "25.0%", "100.0%"], ["reach-v3", "100.0%", "100.0%"]]


def test_episodes(folder, tiny):
    episodes = np.load(folder / "episodes.npz")
    shape = (TASKS, STEPS, 2, STAGES)
    assert {name: episodes[name].shape for name in episodes} == {
        "observations": (*shape, 2), "actions": (*shape, 2), "mask": shape
    }  # fmt: skip
    # The next observation is the last one moved by the action, clipped.
    moved = episodes["observations"][:, :-1] + np.clip(episodes["actions"][:, :-1], -0.1, 0.1)
    both = episodes["mask"][:, 1:, ..., None]
    np.testing.assert_allclose(moved * both, episodes["observations"][:, 1:], atol=1e-6)
    # What an environment tells in a step is recorded, too.
    episodes = np.load(tiny.evaluation("graph") / "episodes.npz")
    assert episodes["info.node"].shape == episodes["info.state_type"].shape == episodes["mask"].shape


def distribution(folder, context, observations, record=None):
    """That of the evaluated policy for one task."""
    config, _ = load_config(folder / "config.json")
    policy = Setup(config).policy
    params = load_policy(folder / "policy.pt", policy)
    return policy(params, torch.from_numpy(context)[None], torch.from_numpy(observations)[None], record)


def forward(folder, context, observations):
    """Its recorded activations: name -> [1, N, units]."""
    record = {}
    distribution(folder, context, observations, record)
    return {name: values.detach().numpy() for name, values in record.items()}


def test_contexts_explain_the_activations(folder):
    contexts = np.load(folder / "contexts.npy")
    assert contexts.shape == (TASKS, STAGES, 2)
    assert not contexts[:, 0].any() and contexts[:, 1:].all()
    episodes, activations = np.load(folder / "episodes.npz"), np.load(folder / "activations.npy")
    assert activations.shape == (TASKS, STEPS, 2, STAGES, UNITS)
    layout = json.loads((folder / "activations.json").read_text(encoding="utf-8"))
    record = forward(folder, contexts[4, 1], episodes["observations"][4, :, 1, 1])
    expected = np.concatenate([record[name][0] for name, _ in layout["units"]], axis=1)
    np.testing.assert_allclose(
        activations[4, :, 1, 1], expected * episodes["mask"][4, :, 1, 1, None], rtol=1e-4, atol=1e-5
    )


def test_the_probe_set(folder):
    probe, contexts = np.load(folder / "probe.npz"), np.load(folder / "contexts.npy")
    # 2D navigation's goals all differ, and no more than 8 are all looked at, in the order of their text.
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    assert probe["tasks"].tolist() == sorted(range(TASKS), key=lambda task: json.dumps(tasks[task]))
    assert probe["observations"].shape == (256, 2)
    seen = {tuple(row) for row in np.load(folder / "episodes.npz")["observations"].reshape(-1, 2).tolist()}
    assert len(seen & {tuple(row) for row in probe["observations"].tolist()}) > 20
    for place, task in enumerate(probe["tasks"]):
        record = forward(folder, contexts[task, 2], probe["observations"])
        for name in ("layer1.output", "layer2.gates", "layer2.modulators"):
            np.testing.assert_allclose(probe[name][place, 2], record[name][0], rtol=1e-4, atol=1e-5)


def test_the_probe_set_of_another_evaluation(tiny, folder):
    other = tiny.evaluation("plain", "--probe", str(folder))
    np.testing.assert_array_equal(
        np.load(other / "probe.npz")["observations"], np.load(folder / "probe.npz")["observations"]
    )


def test_maml_has_no_contexts(tiny):
    folder = tiny.evaluation("maml", "--num-tasks", "3")
    assert not (folder / "contexts.npy").exists()
    gates = np.load(folder / "probe.npz")["layer1.gates"]
    assert gates.shape == (3, STAGES, 256, 8)
    assert not np.array_equal(gates[0, 1], gates[1, 1])


def test_nothing_recorded(tiny):
    folder = tiny.evaluation("navigation", "--activations", "0")
    assert not {"activations.npy", "activations.json", "episodes.npz", "probe.npz"} & {p.name for p in folder.iterdir()}
    assert (folder / "contexts.npy").exists()


@pytest.mark.parametrize(
    "option, value, unchanged",
    [("modulation", value, [0]) for value in ("frozen", "swapped")]
    + [("modulation", value, []) for value in ("ones", "shuffled")]
    + [("context", value, [0]) for value in ("zero", "swapped", "gates")],
)
def test_causal_checks(tiny, folder, option, value, unchanged):
    """Without the check the returns are those of the evaluation without it; before adaptation some change nothing but
    the last digits of an action.
    """
    checked = tiny.evaluation("navigation", f"--{option}", value)
    told = results(checked)
    assert told[option] == value
    assert told["returns_normal"] == results(folder)["returns"]
    same = [np.allclose(rewards(checked)[..., k], rewards(folder)[..., k], rtol=0, atol=1e-3) for k in range(STAGES)]
    assert same == [k in unchanged for k in range(STAGES)]
    assert not (checked / "activations.npy").exists() and (checked / "episodes.npz").exists()


def test_without_context_the_policy_acts_as_before_adaptation(tiny, folder):
    """Both evaluations draw the same noise: with φ = 0 here and φ' there, the same is left of the actions."""
    adapted, zero = np.load(folder / "contexts.npy")[4, 2], np.zeros(2, np.float32)
    left = []
    for place, context in ((tiny.evaluation("navigation", "--context", "zero"), zero), (folder, adapted)):
        observations, actions, mask = (np.load(place / "episodes.npz")[name][4, :, 0, 2] for name in
                                       ("observations", "actions", "mask"))  # fmt: skip
        assert mask.all()
        means = [distribution(folder, phi, observations).mean[0].numpy() for phi in (zero, adapted)]
        assert np.abs(means[0] - means[1]).max() > 0.1
        left.append(actions - distribution(folder, context, observations).mean[0].numpy())
    np.testing.assert_allclose(*left, rtol=0, atol=1e-4)


GOALS = [{"goal": [0.25, -0.5]}, {"goal": [0.0, 0.125]}]


def test_tasks_that_are_written_down_are_evaluated(tiny, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(GOALS))

    def evaluated(name, tasks):
        assert tiny.evaluate("navigation", "--tasks", str(tasks), "--logdir", str(tmp_path / name)) == 0
        return only_run(tmp_path / name)

    folder = evaluated("mine", tmp_path / "mine.json")
    assert json.loads((folder / "tasks.json").read_text()) == GOALS
    assert rewards(folder).shape == (2, STEPS, EPISODES, STAGES)
    found = results(folder)
    assert (found["num_tasks"], found["split"]) == (2, str(tmp_path / "mine.json"))
    # The first reward of an episode says how far the goal is: from where the first action leads.
    episodes = np.load(folder / "episodes.npz")
    for task, goal in enumerate(GOALS):
        distances = np.linalg.norm(episodes["observations"][task, 1, :, 0] - goal["goal"], axis=-1)
        np.testing.assert_allclose(rewards(folder)[task, 0, :, 0], -distances, rtol=1e-5)
    # What an evaluation wrote is such a file, and gives the same tasks the same streams.
    again = evaluated("again", folder / "tasks.json")
    np.testing.assert_array_equal(rewards(again), rewards(folder))


@pytest.mark.parametrize(
    "name, content, options, words",
    [
        ("navigation", '[{"leaf": 1}]', [], ["task {'leaf': 1}", "goal"]),
        ("graph", '[{"leaf": 4}]', [], ["task {'leaf': 4}"]),
        ("graph", '[{"goal": [0.1, 0.2]}]', [], ["task {'goal': [0.1, 0.2]}"]),
        ("navigation", '[{"goal": [0.1]}]', [], ["task {'goal': [0.1]}"]),
        ("navigation", '[{"goal": "there"}]', [], ["task {'goal': 'there'}"]),
        ("navigation", '{"goal": [0.1, 0.2]}', [], ["tasks.json", "a list of tasks"]),
        ("navigation", "[]", [], ["tasks.json", "a list of tasks"]),
        ("navigation", "[3]", [], ["tasks.json", "a list of tasks"]),
        ("navigation", "[{", [], ["tasks.json", "a list of tasks"]),
        ("navigation", None, [], ["tasks.json", "a list of tasks"]),
        ("navigation", json.dumps(GOALS), ["--num-tasks", "2"], ["--tasks", "--num-tasks"]),
        ("navigation", json.dumps(GOALS), ["--split", "train"], ["--tasks", "--split"]),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be(tiny, tmp_path, capsys, name, content, options, words):
    tiny.run(name)
    if content is not None:
        (tmp_path / "tasks.json").write_text(content)
    capsys.readouterr()
    line = ["--tasks", str(tmp_path / "tasks.json"), *options, "--logdir", str(tmp_path / "logs")]
    assert tiny.evaluate(name, *line) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("test.py: ") and all(word in error for word in words), error
    assert not (tmp_path / "logs").exists()


def test_tasks_are_swapped_in_the_smallest_groups_that_have_two_different_ones():
    one, two = {"goal": 1}, {"goal": 2}
    config = Config(tasks_per_group=2, tasks_per_block=4)
    assert test_request.swappable(config, [one, two, two, one]) is config
    # In threes: (1, 1, 2), (1, 2).
    assert test_request.swappable(config, [one, one, two, one, two]).tasks_per_group == 3
    # In threes: (1, 1, 2), (1).
    assert test_request.swappable(config, [one, one, two, one]).tasks_per_group == 4


def test_a_group_without_two_different_tasks_makes_groups_larger(tiny, capsys):
    """Three tasks and one are made a group of four: before anything is sampled, for the sampler and for config.json."""
    config = tiny.run("navigation") / "config.json"
    policy = only_run(tiny.folder / "navigation" / "saves") / "policy-1.pt"
    capsys.readouterr()
    options = rl.test.parse([str(config), str(policy), "--context", "swapped", "--num-tasks", "4"])
    assert test_request.checked(options, Ranks({})).setup.config.tasks_per_group == 4
    assert capsys.readouterr().out == "swapped:     tasks in groups of 4; in one of 3 none differ\n"


def test_options_of_the_evaluation_replace_the_runs(tiny):
    config = tiny.run("navigation") / "config.json"
    policy = only_run(tiny.folder / "navigation" / "saves") / "policy-1.pt"

    def plan(*options):
        return test_request.checked(rl.test.parse([str(config), str(policy), *options]), Ranks({})).plan

    first, second = plan().learning_rates
    assert second == first and plan("--no-halve-test-lr") == plan()
    assert plan("--halve-test-lr").learning_rates == (first, first / 2)
    assert plan("--test-batch-size", "7", "--num-test-steps", "3") == plan()._replace(
        num_episodes=7, learning_rates=(first,) * 3
    )


@pytest.mark.parametrize(
    "name, options, complaint",
    [
        ("plain", ["--modulation", "ones"], "--modulation ones: a plain policy has no gates"),
        ("plain", ["--context", "gates"], "--context gates: a plain policy has no gates"),
        ("maml", ["--context", "zero"], "--context zero: a MAML policy has no context"),
        ("navigation", ["--context", "swapped", "--num-tasks", "1"], "swapped: no two tasks differ; expected other"),
        (
            "navigation",
            ["--activations", "-1"],
            "--activations: expected a whole number from 0 to 2147483647, got '-1'",
        ),
        (
            "navigation",
            ["--activations", "many"],
            "--activations: expected a whole number from 0 to 2147483647, got 'many'",
        ),
        ("navigation", ["--modulation", "none"], "--modulation: invalid choice: 'none'"),
        ("navigation", ["--num-test-steps", "0"], "--num-test-steps: expected at least 1, got 0"),
        ("navigation", ["--num-test-steps", "999"], "--num-test-steps: expected at most "),
        ("navigation", ["--test-batch-size", "0"], "--test-batch-size: expected at least 1, got 0"),
        ("navigation", ["--num-tasks", "0"], "--num-tasks: expected at least 1, got 0"),
        ("navigation", ["--num-workers", "-1"], "--num-workers: expected at least 0, got -1"),
        ("navigation", ["--seed", "-1"], "--seed: expected at least 0, got -1"),
        ("navigation", ["--video", "-1"], "--video: expected 1 to 6 episodes, one a task, got -1"),
        (
            "navigation",
            ["--protocol", "metaworld"],
            "--protocol metaworld: expected a run on Meta-World, this one is on 2DNavigation-v0",
        ),
        (
            "navigation",
            ["--protocol", "metaworld", "--test-batch-size", "3"],
            "--protocol metaworld: has its own numbers of episodes; expected no --test-batch-size",
        ),
        ("navigation", ["--probe", "/nowhere", "--activations", "0"], "--probe: no activations are recorded with"),
        ("navigation", ["--probe", "/nowhere", "--modulation", "ones"], "--probe: no activations are recorded with"),
        ("navigation", ["--probe", "/nowhere"], "--probe /nowhere: expected an evaluation with activations"),
    ],
)
def test_bad_input(tiny, capsys, name, options, complaint):
    tiny.run(name)
    capsys.readouterr()
    assert tiny.evaluate(name, "--logdir", str(tiny.folder / "nothing"), *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1 and error.startswith("test.py: ")
    assert not (tiny.folder / "nothing").exists()


def test_the_probe_set_of_another_environment(tiny, folder, capsys):
    assert tiny.evaluate("graph", "--probe", str(folder)) == 2
    assert "observations: expected Float32 [N O], O = 17; found" in capsys.readouterr().err


def raising(error):
    def fail(*_):
        raise error

    return fail


def signalled(number):
    return lambda *_: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "happens, status, told",
    [
        (lambda folder: signalled(signal.SIGINT), 130, "interrupted (SIGINT)"),
        (lambda folder: signalled(signal.SIGTERM), 143, "interrupted (SIGTERM)"),
        (lambda folder: lambda *_: shutil.rmtree(only_run(folder)), 1, "No such file or directory"),
        # Of each file: evaluation/test_recordings.py.
        (lambda folder: raising(OSError(errno.EFBIG, "File too large", str(folder))), 1, "File too large"),
    ],
)
def test_what_ends_an_evaluation_early_leaves_no_half_of_it(tiny, tmp_path, capsys, monkeypatch, happens, status, told):
    monkeypatch.setattr(report, "results", happens(tmp_path))
    tiny.run("navigation")
    capsys.readouterr()
    assert tiny.evaluate("navigation", "--logdir", str(tmp_path)) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("test.py: ") and line.endswith(told)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [] and active_children() == []


WRITTEN = {"results.json", "rewards.npy", "tasks.json", "contexts.npy", "episodes.npz", "policy.pt", "config.json"}


@pytest.mark.parametrize(
    "happens, status, told",
    [
        (
            raising(ValueError("no\nfont")),
            1,
            "adaptation.png: cannot be drawn: ValueError: no font (",
        ),
        (signalled(signal.SIGINT), 130, "test.py: interrupted (SIGINT)"),
    ],
)
def test_a_picture_that_fails_costs_the_picture_alone(tiny, tmp_path, capsys, monkeypatch, happens, status, told):
    def half(folders, output):
        output.with_suffix(".png").write_bytes(b"half")
        happens()

    monkeypatch.setattr(rl.plots.adaptation, "adaptation", half)
    tiny.run("navigation")
    capsys.readouterr()
    assert tiny.evaluate("navigation", "--logdir", str(tmp_path)) == status
    printed = capsys.readouterr()
    assert told in printed.err and printed.err.count("\n") == 1
    assert "updates      mean" in printed.out and "picture:" not in printed.out
    names = {path.name for path in only_run(tmp_path).iterdir()}
    assert names >= WRITTEN and (status == 130 or not {name for name in names if "adaptation" in name or "tmp" in name})


def test_tasks_that_cannot_be_drawn_are_told_of_before_anything_is_written(tiny, tmp_path, capsys, monkeypatch):
    def too_few(*_):
        raise UserError("too few")

    tiny.run("navigation")
    capsys.readouterr()
    monkeypatch.setattr(Setup, "sample_tasks", too_few)
    assert tiny.evaluate("navigation", "--logdir", str(tmp_path / "none"), "--num-tasks", "7") == 2
    assert capsys.readouterr().err == "test.py: --num-tasks 7: too few\n"
    assert not (tmp_path / "none").exists()


def test_an_evaluation_goes_beside_its_run(tmp_path):
    config = Config(neuromodulation=True)
    run = tmp_path / "moved" / "2DNavigation-v0" / "nm_cavia" / "run" / "config.json"
    assert test_request.beside(run, config) == tmp_path / "moved"
    # A config.json that lies alone has no run around it.
    for alone in (tmp_path / "config.json", tmp_path / "2DNavigation-v0" / "cavia" / "run" / "config.json"):
        assert str(test_request.beside(alone, config)) == "logs"
