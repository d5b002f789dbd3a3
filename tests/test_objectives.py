"""The options that go beyond the paper, as a user gives them: they train, resume, and refuse what makes no sense."""

import numpy as np
import pytest
import torch

import rl.envs
from rl import main, streams
from rl.policies import Architecture, make_policy
from rl.sampling.rollout import AdaptationPlan, StreamName, _evenly, meta_rollout
from tests.support.helpers import ROOT, random_params
from tests.torture import TINY, into, record

GRAPH = str(ROOT / "rl" / "envs" / "ctgraph" / "ctgraph_d2.json")
RUN = [*TINY, "--num-workers", "0", "--test-freq", "2", "--save-freq", "1", "--neuromodulation", "--nm-size", "3"]
OPTIONS = [
    ["--outer-step", "ppo", "--inner-objective", "ratio", "--num-updates", "2", "--num-ppo-steps", "2"],
    ["--pre-update-return", "1", "--exploration-credit", "0.5", "--entropy-bonus", "0.1", "--explore", "0.4",
     "--pre-update-kl", "0.2"],
    ["--nm-without-context", "--nm-gate", "soft", "--outer-step", "ppo", "--maml"],
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=["promp", "credit", "maml"])
def test_a_run_ends_with_the_same_bytes_at_once_and_resumed_and_in_blocks_of_workers(tmp_path, options):
    line = [*RUN, *options, "--tasks-per-block", "2"]
    folders = [tmp_path / name for name in ("at once", "resumed")]
    assert main.program([*line, "--num-batches", "4", *into(folders[0])]) == 0
    others = ["--learner-threads", "2", "--num-workers", "2"]
    assert main.program([*line, "--num-batches", "3", *others, *into(folders[1])]) == 0
    assert main.program([*line, "--num-batches", "4", "--resume", "auto", *into(folders[1])]) == 0
    at_once, resumed = map(record, folders)
    assert at_once == resumed


@pytest.mark.parametrize(
    "options, named",
    [
        (["--pre-update-return", "-1"], "--pre-update-return"),
        (["--exploration-credit", "nan"], "--exploration-credit"),
        (["--entropy-bonus", "inf"], "--entropy-bonus"),
        (["--explore", "1.5"], "--explore"),
        (["--explore", "0.01"], "--fast-batch-size"),
        (["--explore", "0.2", "--inner-objective", "ratio"], "--inner-objective"),
        (["--explore", "0.2", "--env-name", "2DNavigation-v0", "--env-config-path", ""], "2DNavigation-v0"),
        (["--clip-eps", "0.2"], "--outer-step ppo"),
        (["--outer-step", "ppo", "--max-kl", "0.5"], "--outer-step trpo"),
        (["--pre-update-return", "1", "--pre-update-kl", "-1"], "--pre-update-kl"),
        (["--pre-update-return", "1", "--outer-step", "ppo", "--pre-update-kl", "0.5"], "--outer-step trpo"),
        (["--outer-step", "ppo", "--fvp-subsample", "0.5"], "--outer-step trpo"),
        (["--num-updates", "0"], "--num-updates"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, capsys, options, named):
    assert main.program([*RUN, "--num-batches", "1", *options, *into(tmp_path)]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert named in complaint and not list(tmp_path.iterdir())


def test_explorers_choose_evenly_among_safe_actions_and_others_see_nothing_of_it():
    name, episodes, tasks = "CTgraphEnvGoalChange-v0", 4, 30
    env = rl.envs.make(name, tasks * episodes, **rl.envs.options(name, GRAPH))
    policy = make_policy(Architecture(env.single_observation_space.shape[0], 3, True, 2, (8,)))
    params = random_params(policy, dtype=torch.float32)
    plan = AdaptationPlan(episodes, (0.5,), 0.95, 1.0)
    drawn = env.sample_tasks(tasks, "train", np.random.default_rng(0))
    stream = StreamName(3, 2, streams.TRAIN, 0)
    plans = (plan, plan._replace(explore=0.625))  # 2.5 episodes of 4: three
    plain, mixed = (meta_rollout(env, policy, params, drawn, each, stream).episodes for each in plans)
    for part in ("observations", "actions", "rewards", "mask"):
        assert np.array_equal(getattr(plain[0], part)[:, :, 3:], getattr(mixed[0], part)[:, :, 3:])
    explored = mixed[0].mask[:, :, :3]
    # Home, wait, decision, wait, decision, wait, leaf: no explorer crashes, and both branches are taken.
    assert (explored.sum(1) == explored.shape[1]).all() and plain[0].mask[:, :, :3].sum() < explored.sum()
    decisions = mixed[0].actions[:, [2, 4], :3]
    assert set(np.unique(decisions)) == {1, 2}
    assert not np.array_equal(plain[1].actions, mixed[1].actions)  # the update learns from it


def test_random_choices_are_even():
    safe = np.array([[True, False, True, True]] * 300)
    chosen = _evenly(safe, np.linspace(0, 1, 300, endpoint=False))
    assert np.bincount(chosen, minlength=4).tolist() == [100, 0, 100, 100]
