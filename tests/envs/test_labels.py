"""What is said of environments and their tasks, in legends and titles."""

import numpy as np
import pytest

import rl.envs
from tests.support.ctgraph_documents import FOLDER

LEAVES, HERE = "CTgraphEnvGoalChange-v0", "tests.support.user_environments"


@pytest.mark.parametrize(
    "name, task, label",
    [
        (LEAVES, {"leaf": 3}, "leaf 3"),
        ("2DNavigation-v0", {"goal": [0.123, -0.5]}, "goal (0.12, −0.50)"),
        ("2DNavigation-v0", {"goal": [-0.001, -0.006]}, "goal (0.00, −0.01)"),
        ("HalfCheetahDir-v1", {"direction": 1}, "forwards"),
        ("AntDir-v1", {"direction": -1}, "backwards"),
        ("AntVel-v1", {"velocity": 1.5}, "1.50 m/s"),
        ("ML1Push-v2", {"env_name": "push-v3", "rand_vec": [9.0, 0.1, 0.85, -0.02]}, "push-v3 (0.10, 0.85, −0.02)"),
        ("Bandit-K5-v0", {"mean": [0.1, 0.2, 0.3, 0.4, 0.5]}, ""),
        (f"{HERE}:Walk-v0", {"place": -4}, "place −4"),
        ("Absent-v0", {"colour": "red"}, "colour red"),
        ("no_such_module:Absent-v0", {"colour": "red"}, "colour red"),
    ],
)
def test_labels_of_tasks(name, task, label):
    assert rl.envs.task_label(name, task) == label


@pytest.mark.parametrize(
    "name, file, expected",
    [
        (LEAVES, FOLDER / "ctgraph_d3.json", f"{LEAVES} depth 3"),
        (LEAVES, FOLDER / "ctgraph_d2_b3.json", f"{LEAVES} depth 2 branching 3"),
        ("AntDir-v1", None, "AntDir-v1"),
        (f"{HERE}:Walk-v0", None, f"{HERE}:Walk-v0"),
        # Where the environment cannot be asked, another file is another environment all the same.
        ("no_such_module:Absent-v0", "large.json", "no_such_module:Absent-v0 large"),
    ],
)
def test_descriptions(name, file, expected):
    assert rl.envs.describe(name, file) == expected


def test_success_is_what_the_rewards_of_a_ctgraph_say():
    rewards = np.zeros((1, 3, 2, 2))
    rewards[0, 1, 1, 0], rewards[0, 2, 0, 1] = 1.0, -0.01
    assert rl.envs.success(LEAVES, rewards).tolist() == [[[False, False], [True, False]]]
    rewards[0, 0, 1, 1] = 0.5  # as of a graph in which several leaves pay
    assert rl.envs.success(LEAVES, rewards) is None
    assert rl.envs.success("2DNavigation-v0", rewards) is None


def test_meta_world_alone_has_a_protocol_of_its_own():
    assert [name for name in rl.envs.known() if rl.envs.protocols(name)] == list(rl.envs.META_WORLD)


def test_classes_of_tasks():
    assert rl.envs.task_class({"env_name": "push-v3"}) == "push-v3" and rl.envs.task_class({"goal": [0, 0]}) is None
