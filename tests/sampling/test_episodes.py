import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from rl.sampling.episodes import Episodes


def numbered(num_tasks=3, horizon=4, num_episodes=2):
    shape = (num_tasks, horizon, num_episodes)
    mask = np.ones(shape, np.float32)
    mask[0, 2:, 1] = 0
    rewards = np.arange(mask.size, dtype=np.float64).reshape(shape) * mask
    infos = {"success": rewards > 5}
    return Episodes(np.ones((*shape, 5), np.float32), np.zeros(shape, np.int64), rewards, mask, infos)


def test_returns_and_steps():
    # Task 0 holds 0…7: episode 0 earns 0 + 2 + 4 + 6 = 12, episode 1 ended after two steps: 1 + 3 = 4.
    episodes = numbered()
    assert episodes.returns.shape == (3, 2)
    assert episodes.returns[0].tolist() == [12, 4]
    assert episodes.steps == 3 * 4 * 2 - 2


def test_tasks_are_cut_without_copying_and_joined_again():
    episodes = numbered()
    parts = [episodes.tasks(0, 1), episodes.tasks(1, 3)]
    assert [part.mask.shape[0] for part in parts] == [1, 2]
    assert all(np.shares_memory(a, b) for a, b in zip(parts[1].arrays(), episodes.arrays(), strict=True))
    for joined, whole in zip(Episodes.concatenate(parts).arrays(), episodes.arrays(), strict=True):
        np.testing.assert_array_equal(joined, whole)
    np.testing.assert_array_equal(parts[1].infos["success"], episodes.rewards[1:] > 5)
    np.testing.assert_array_equal(Episodes.concatenate(parts).infos["success"], episodes.infos["success"])


def test_what_was_told_in_one_part_is_zero_in_the_others():
    silent = dataclasses.replace(numbered(), infos={})
    for parts in ([numbered(), silent], [silent, numbered()]):
        for part, alike in zip(parts, Episodes.alike(parts), strict=True):
            assert alike.infos["success"].dtype == bool
            assert alike.infos["success"].any() == bool(part.infos)
    assert Episodes.alike([silent, silent])[0].infos == {}
    joined = Episodes.concatenate([silent, numbered()]).infos["success"]
    assert joined[3:].any() and not joined[:3].any()


@pytest.mark.parametrize("field, cut", [("observations", np.s_[:2]), ("rewards", np.s_[:2]), ("mask", np.s_[:, :, 0])])
def test_arrays_that_do_not_share_their_axes_are_refused(field, cut):
    """By the annotations in tests, and by its own check in a program."""
    arrays = vars(numbered())
    arrays |= {field: arrays[field][cut]}
    with pytest.raises(TypeError, match="Episodes"):
        Episodes(**arrays)
    with pytest.raises(ValueError, match="do not share"):
        Episodes.__post_init__(SimpleNamespace(**arrays))
