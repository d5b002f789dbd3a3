import contextlib

import numpy as np
import pytest
from scipy import stats

from rl import streams
from rl.config import Config
from rl.evaluation.evaluate import by_class, mean_over_episodes, successes
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from rl.sampling.in_process import InProcessSampler


def test_a_mean_over_episodes_equals_scipy():
    values = np.random.default_rng(0).normal(3, 2, (4, 5))
    low, high = stats.t.interval(0.95, values.size - 1, loc=values.mean(), scale=stats.sem(values, axis=None))
    mean, half_width = mean_over_episodes(values)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-12)


def test_one_episode_has_no_interval():
    assert mean_over_episodes([4.0]) == (4.0, 0.0)
    assert mean_over_episodes(np.full(5, 2.0)) == (2.0, 0.0)


@pytest.mark.parametrize("halve, expected", [(False, (0.4, 0.4, 0.4)), (True, (0.4, 0.2, 0.2))])
def test_the_learning_rate_is_halved_after_the_first_update(halve, expected):
    setup = Setup(Config(fast_lr=0.4, num_test_steps=3, halve_test_lr=halve, fast_batch_size=7, test_batch_size=9))
    assert setup.test_plan()[:4] == (9, expected, 0.95, 1.0)
    assert setup.train_plan()[:4] == (7, (0.4,), 0.95, 1.0)


def test_test_tasks_are_drawn_and_sampled_from_streams_of_their_own():
    setup = Setup(Config(num_test_steps=2, seed=8, test_batch_size=3, num_test_tasks=5))
    params, sampling = setup.initial_params(), setup.test_plan()
    tasks, again, later, trained_on = (
        setup.sample_tasks(5, "test", iteration, phase)
        for iteration, phase in (
            (6, streams.EVALUATE),
            (6, streams.EVALUATE),
            (7, streams.EVALUATE),
            (6, streams.TRAIN),
        )
    )
    assert again == tasks and later != tasks and trained_on != tasks
    with contextlib.closing(InProcessSampler(setup.spec, 5)) as sampler:
        rollouts = sampler.sample(params, tasks, sampling, setup.stream(6, streams.EVALUATE))
        trained_on = sampler.sample(params, tasks, sampling, setup.stream(6, streams.TRAIN))
    # The tasks returned are those of the episodes: rewards are distances from their goals, here after the first move.
    goals = np.array([task["goal"] for task in tasks])[:, None]
    assert [episodes.mask.shape for episodes in rollouts.episodes] == [(5, 100, 3)] * 3
    for episodes, others in zip(rollouts.episodes, trained_on.episodes, strict=True):
        moved = np.clip(episodes.actions[:, 0], -0.1, 0.1)
        np.testing.assert_allclose(episodes.rewards[:, 0], -np.linalg.norm(moved - goals, axis=-1), atol=1e-6)
        assert not np.isin(episodes.actions, others.actions[others.actions != 0]).any()


def test_success_is_counted_at_any_step_and_at_the_last_one_taken():
    ones = np.ones((1, 4, 3))
    mask = ones.copy()
    mask[0, 2:, 2] = 0  # the third episode takes two steps
    solved = np.zeros((1, 4, 3), bool)
    solved[0, 1, 0] = True  # on the way, not at the end
    solved[0, 3, 1] = True  # at the end
    solved[0, 1, 2] = True  # at the end of the short one
    found = successes(Episodes(np.ones((1, 4, 3, 1)), ones, ones, mask, {"success": solved}))
    assert found["any"].tolist() == [[True, True, True]] and found["final"].tolist() == [[False, True, True]]
    assert successes(Episodes(np.ones((1, 4, 3, 1)), ones, ones, ones)) is None


def test_tasks_of_one_class_are_not_told_apart():
    push, reach = {"env_name": "push-v3"}, {"env_name": "reach-v3"}
    assert by_class([push, reach, push]) == {"push-v3": [0, 2], "reach-v3": [1]}
    assert by_class([push, push]) == {} and by_class([{"goal": [0, 0]}] * 2) == {}
