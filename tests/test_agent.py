"""What notebooks use: `rl.load`, and the notebook that shows it."""

import json
import shutil

import gymnasium
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

import rl.main
from rl.errors import UserError
from rl.evaluation.runs import read_evaluation
from tests.support.helpers import ROOT
from tests.support.tiny_runs import SMALL

KEPT = ROOT / "results/navigation/nm_hard/1"


def test_the_notebooks_cells_run_from_another_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The environment that a cell registers is gone afterwards.
    monkeypatch.setitem(gymnasium.registry, "Line-v0", None)
    monkeypatch.delitem(gymnasium.registry, "Line-v0")
    names = {}
    for cell in nbformat.read(ROOT / "examples/notebook.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert "logs: " in capsys.readouterr().out
    names["folder"].cleanup()


@pytest.mark.slow
def test_the_notebook_runs_from_another_folder(tmp_path):
    notebook = nbformat.read(ROOT / "examples/notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "(2, 5)" in shown and "logs in " in shown


def test_an_agent_adapts_as_an_evaluation_does(tiny):
    """test.py, asked for the same tasks and seed, samples the same episodes."""
    evaluation = read_evaluation(tiny.evaluation("navigation", "--num-tasks", "1", "--seed", "5"))
    agent = rl.load(tiny.run("navigation"))
    adapted = agent.adapt(evaluation.tasks[0], updates=2, seed=5)
    np.testing.assert_array_equal(adapted.returns, evaluation.returns[0])
    assert adapted.returns.shape == (3, 3)
    np.testing.assert_array_equal(adapted.contexts, np.load(evaluation.path / "contexts.npy")[0])
    gates = evaluation.probe["layer1.gates"][0, -1, 0]
    np.testing.assert_allclose(adapted.gates(evaluation.probe["observations"][0])["layer1"], gates, rtol=0, atol=1e-6)


def test_an_adapted_agent_acts_in_a_gymnasium_environment():
    agent = rl.load(ROOT / "results/ctgraph_d3/nm_hard/1")
    adapted = agent.adapt({"leaf": 2}, updates=1)
    env, rng = agent.env(adapted.task), np.random.default_rng(0)
    observation, _ = env.reset(seed=1)
    assert isinstance(adapted.act(observation), int) and adapted.act(observation, rng) in env.action_space
    earned, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(adapted.act(observation))
        earned, ended = earned + reward, terminated or truncated
    assert earned == adapted.returns[1].max() == 1.0


def test_several_choices_at_once_are_learnt_and_acted(tmp_path):
    """With observations of many kinds, a file of the environment's own, and films' frames."""
    (tmp_path / "rooms.json").write_text('{"reward": 0.5}')
    run = rl.main.main([
        "--env-name", "tests.support.user_environments:Rooms-v0", "--env-config-path", str(tmp_path / "rooms.json"),
        *SMALL, "--neuromodulation", "--nm-gate", "soft", "--logdir", f"{tmp_path}/logs",
        "--savedir", f"{tmp_path}/saves",
    ])  # fmt: skip
    agent = rl.load(run)
    assert agent.policy.shapes["layer3.weight"] == (5, 8)
    adapted = agent.adapt({"room": 2}, updates=1)
    assert (adapted.returns == 10).all()  # 20 steps of 0.5
    env = agent.env(adapted.task, "rgb_array")
    observation, _ = env.reset(seed=1)
    for rng in (None, np.random.default_rng(0)):
        action = adapted.act(observation, rng)
        assert env.action_space.contains(action) and env.step(action)[1] == 0.5
    assert env.render().shape == (240, 320, 3)


def test_the_mean_action_of_a_normal_policy_is_that_of_its_distribution():
    adapted = rl.load(KEPT).adapt({"goal": [0.1, 0.2]}, updates=0)
    observation = np.array([0.3, -0.1], np.float32)
    params, context = adapted.stages[0]
    expected = adapted.agent.policy(params, context, torch.from_numpy(observation)[None, None]).mean[0, 0].numpy()
    np.testing.assert_array_equal(adapted.act(observation), expected)
    assert adapted.returns.shape == (1, 20) and not adapted.contexts.any()


def test_tasks_are_drawn_and_refused():
    agent = rl.load(KEPT)
    assert agent.sample_tasks(3, seed=1) == agent.sample_tasks(3, seed=1) != agent.sample_tasks(3, seed=2)
    with pytest.raises(UserError, match=r"gaol.*goal"):
        agent.adapt({"gaol": [0.0, 0.0]})
    with pytest.raises(UserError, match=r"task \[1\]: expected a dict"):
        agent.adapt([1])
    with pytest.raises(UserError, match="split: expected train or test, got 'tset'"):
        agent.sample_tasks(2, "tset")


@pytest.mark.parametrize(
    "given, word",
    [
        ({"updates": -1}, "updates: .* 1, got -1"),
        ({"updates": 200}, "updates: .* at most"),
        ({"episodes": 0}, "episodes: .* 1, got 0"),
        ({"seed": -1}, "seed: .* 0, got -1"),
        ({"updates": 1.5}, "updates: expected a whole number, got 1.5"),
    ],
)
def test_impossible_numbers_are_refused(given, word):
    with pytest.raises(UserError, match=word):
        rl.load(KEPT).adapt({"goal": [0.0, 0.1]}, **given)


def test_an_evaluations_folder_has_the_task_sets_of_its_run(tmp_path):
    """Of Meta-World's, another seed's test goals may have been trained on."""
    run = ROOT / "results/ml1_reach/cavia/1"
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["seed"] == 1
    evaluated = json.dumps(config | {"seed": 0, "run_seed": 1})
    (tmp_path / "config.json").write_text(evaluated, encoding="utf-8")
    drawn = rl.load(tmp_path).sample_tasks(50, "test")
    assert drawn == rl.load(run).sample_tasks(50, "test")
    (tmp_path / "config.json").write_text(evaluated.replace('"run_seed": 1', '"run_seed": 0'), encoding="utf-8")
    assert all(task in rl.load(run).sample_tasks(50, "train") for task in rl.load(tmp_path).sample_tasks(50, "test"))


def test_what_cannot_be_loaded_is_one_line(tmp_path, tiny):
    with pytest.raises(UserError, match=r"config\.json"):
        rl.load(tmp_path)
    config = tiny.run("navigation") / "config.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes().replace(b"saves", b"nowhere"))
    with pytest.raises(UserError, match=r"policy\.pt"):
        rl.load(tmp_path)
