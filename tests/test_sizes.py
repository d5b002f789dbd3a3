"""What a run may use of the machine, and what it needs of it."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.spaces import Box

from rl import machine, main, test
from rl.config import Config, parse_given
from rl.run import resources
from rl.run.setup import Setup
from tests.support.documents import commands
from tests.support.helpers import ROOT

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def in_groups(root, group, limits):
    """The files in which Linux says what control groups a process is in, and what they allow: name -> text."""
    written(root / "proc" / "self" / "cgroup", group)
    for name, text in limits.items():
        written(root / "sys" / "fs" / "cgroup" / name, text)


@pytest.mark.parametrize(
    "group, limits, expected",
    [
        ("", {}, MACHINE),
        ("0::/job/step\n", {"job/memory.max": "1000000\n", "job/step/memory.max": "max\n"}, 1_000_000),
        # In a container: the path is the host's, the container's own group stands at the root.
        ("0::/docker/1234\n", {"memory.max": "2000000\n"}, 2_000_000),
        ("3:cpu:/\n2:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "3000000\n"}, 3_000_000),
        ("2:memory:/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, MACHINE),
    ],
)
def test_a_control_group_can_allow_less_memory(tmp_path, group, limits, expected):
    in_groups(tmp_path, group, limits)
    assert machine.memory(tmp_path) == expected


def test_of_memory_that_nobody_tells_of(tmp_path):
    assert machine.memory(tmp_path) == MACHINE


@pytest.mark.parametrize(
    "group, limits, expected",
    [
        ("", {}, 6),
        # 2.5 seconds of computing a second keep three cores busy, of a group around it two.
        ("0::/job/step\n", {"job/step/cpu.max": "250000 100000\n"}, 3),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2),
        ("0::/docker/1234\n", {"cpu.max": "1000 100000\n"}, 1),
        (
            "4:cpu,cpuacct:/job\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "400000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ("0::/\n", {"cpu.max": "no number\n"}, 6),
    ],
)
def test_a_control_group_can_allow_fewer_cores(tmp_path, monkeypatch, group, limits, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    in_groups(tmp_path, group, limits)
    assert machine.cores(tmp_path) == expected


def test_a_process_can_be_bound_to_some_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4}, raising=False)
    assert machine.cores(tmp_path) == 2
    # Where the system does not tell.
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores(tmp_path) == 1


def into(folder):
    return ["--logdir", str(folder / "logs"), "--savedir", str(folder / "saves")]


@pytest.mark.parametrize("size", ["1000000", "1000000000"])
@pytest.mark.parametrize(
    "option", ["--meta-batch-size", "--num-test-tasks", "--test-batch-size", "--fast-batch-size", "--num-workers",
               "--hidden-size",
               "--num-layers", "--nm-size", "--num-context-params", "--horizon", "--num-test-steps"],
)  # fmt: skip
def test_sizes_beyond_any_memory_are_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, option, size):
    monkeypatch.setattr(machine, "memory", lambda: 24 * 2**30)
    env_name = "ML1Push-v2" if option == "--horizon" else "2DNavigation-v0"
    line = ["--env-name", env_name, "--neuromodulation", option, f"{size}", *into(tmp_path)]
    assert main.program(line) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert option.lstrip("-") in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--num-tasks", "--num-workers"])
def test_sizes_of_an_evaluation(tiny, tmp_path, capsys, option):
    config = tiny.run("navigation") / "config.json"
    line = [str(config), "no policy", option, "100000000", "--logdir", str(tmp_path)]
    assert test.main(line) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"test.py: {option}") and "needed" in told
    assert list(tmp_path.iterdir()) == []


def meta_world(*_):
    """What `estimate` looks at of a Meta-World environment, which takes long to make."""
    return SimpleNamespace(
        single_observation_space=Box(-1, 1, (39,), np.float32), single_action_space=Box(-1, 1, (4,), np.float32),
        horizon=200, num_observations=None,
    )  # fmt: skip


@pytest.mark.parametrize("line", commands("main.py"), ids=lambda line: " ".join(line[:2]))
def test_what_the_documents_propose_is_far_from_the_limit(monkeypatch, line):
    monkeypatch.chdir(ROOT / "rl")
    given, resumed = parse_given([*line, "--num-workers", "64"])
    config = Config(**given)
    if resumed or ":" in config.env_name:
        pytest.skip("no run, or an environment of one's own")
    if config.env_name.startswith("ML"):
        monkeypatch.setattr("rl.envs.options", lambda *_: {})
        monkeypatch.setattr("rl.envs.make", meta_world)
    experiment = Setup(config)
    needs = resources.estimate(config, experiment.env, experiment.policy, "--num-test-tasks", True, 1)
    assert sum(needs.values()) < 8e9


def test_an_estimate_by_hand():
    """One task and episode of 100 steps; a step has 2 observations and 2 actions of 4 bytes, a reward of 8 and a mask
    of 4: 28 bytes.
    """
    ones = dict.fromkeys(
        ("meta_batch_size", "num_test_tasks", "test_batch_size", "fast_batch_size", "num_test_steps", "num_workers"), 1
    )
    config = Config(**ones, hidden_size=10, num_layers=1, num_context_params=1)
    experiment = Setup(config)
    # 3·10 + 10 weights and biases of the hidden layer, 10·2 + 2 of the means, 2 standard deviations.
    assert experiment.policy.num_params == 64
    assert resources.estimate(
        config, experiment.env, experiment.policy, "--num-tasks", training=True, interventions=1
    ) == {
        "--meta-batch-size, --fast-batch-size": 200 + 2 * 2800,
        "--num-tasks, --num-test-steps, --test-batch-size": 200 + 2 * 4 * 2800,
        "--num-workers, --fast-batch-size, --test-batch-size": 300 + 2 * 2800,
        "--num-workers": 10e6,
        "--hidden-size, --num-layers": 4 * 64 * (4 + 2),
    }
