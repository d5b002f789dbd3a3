"""Trajectories are drawn by the environment's own pictures: those of a family that this test adds, too."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import rl.envs
from rl import plot
from rl.config import Config
from rl.envs import check
from rl.envs.contract import POINTS, keys, roll
from rl.evaluation import runs
from rl.evaluation.task_choice import distinct
from tests.support import corridor_family


@pytest.fixture
def corridor(tmp_path):
    """The family's configuration file, with its package on the path."""
    with corridor_family.installed(tmp_path) as file:
        yield file


def recorded_evaluation(folder, name, file):
    """An evaluation's folder with three tasks, two random episodes of each after 0 and 1 updates."""
    env = rl.envs.make(name, 1, **rl.envs.options(name, file))
    tasks, rng = [{"cell": 0}, {"cell": 4}, {"cell": 0}], np.random.default_rng(0)
    played = [[[roll(env, keys(1), [task], rng.integers(2, size=(env.horizon, 1)))
                for _ in range(2)] for _ in range(2)] for task in tasks]  # fmt: skip
    # Tasks, updates, episodes, steps -> tasks, steps, episodes, updates.
    arrays = {
        kind: np.array([[[episode[kind][:, 0] for episode in each] for each in stages] for stages in played])
        for kind in ("observations", "rewards", "cell")
    }
    arrays = {kind: values.swapaxes(1, 3) for kind, values in arrays.items()}
    folder.mkdir()
    episodes = {"observations": arrays["observations"][:, :-1], "actions": arrays["rewards"],
                "mask": np.ones_like(arrays["rewards"]), "info.cell": arrays["cell"]}  # fmt: skip
    np.savez(folder / "episodes.npz", **episodes)
    np.save(folder / "rewards.npy", arrays["rewards"])
    config = dataclasses.asdict(Config(env_name=name, env_config_path=str(file)))
    for path, content in (("config.json", config), ("tasks.json", tasks), ("results.json", {})):
        (folder / path).write_text(json.dumps(content), encoding="utf-8")
    (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return arrays


@pytest.mark.parametrize("built_in", [True, False])
def test_a_new_family_is_a_folder_and_a_row(corridor, tmp_path, monkeypatch, capsys, built_in):
    name = corridor_family.ID if built_in else corridor_family.NAME
    if built_in:
        monkeypatch.setitem(rl.envs.REGISTRY, name, rl.envs.Row(corridor_family.ROW))
    folder, output = tmp_path / "evaluation", tmp_path / "drawn"
    arrays = recorded_evaluation(folder, name, corridor)
    assert plot.main(["trajectories", str(folder), "--output", str(output)]) == 0
    assert "2 of 3 tasks, the first episode of each, after 0 to 1 updates" in capsys.readouterr().out
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    with open(tmp_path / "drawn.csv", newline="", encoding="utf-8") as file:
        rows = [tuple(map(int, row.values())) for row in csv.DictReader(file)]
    assert rows == [(task, updates, arrays["cell"][task, -1, 0, updates]) for task in (0, 1) for updates in (0, 1)]
    evaluation = runs.read_evaluation(folder)
    assert evaluation.environment == f"{name} of 5 cells" and evaluation.label(1) == "to cell 4"
    success = rl.envs.success(name, arrays["rewards"])
    assert success.shape == (3, 2, 2) and (success == (arrays["rewards"].sum(axis=1) > 0)).all()


def test_a_family_of_ones_own_keeps_the_contract(corridor, capsys):
    assert check.main([corridor_family.NAME, "--env-config-path", str(corridor)]) == 0
    assert capsys.readouterr().out.count("ok: ") == len(POINTS)
    assert check.main([corridor_family.NAME]) == 2
    assert "needs a configuration file: --env-config-path" in capsys.readouterr().err


def test_distinct_tasks():
    leaves = [{"leaf": leaf} for leaf in (3, 0, 3, 1, 0)]
    assert distinct(leaves) == [1, 3, 0]
    goals = [{"goal": [float(i % 9), 0.0]} for i in range(20)]
    assert distinct(goals[::-1]) == [0, 1, 2, 3, 4, 5]
    assert len(distinct(goals[:8])) == 8
