"""The CT-graph against its definition, the package gym-CTgraph 1.0."""

import logging
import sys
import types

import numpy as np
import pytest
from scipy import stats

from rl.envs.ctgraph import config as ctgraph_config
from rl.envs.ctgraph.environment import CRASH, DECISION, HOME, LEAF, WAIT
from tests.support.ctgraph_documents import SHIPPED, SIGNIFICANCE, document, every_walk, for_package, make
from tests.support.env_contract import keys, roll


class NumpyForPackage:
    """The package turns entries of a [5, 1] array into int, which numpy has ceased to do: make that array [5]."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def zeros(shape):
        return np.zeros(5 if shape == (5, 1) else shape)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """make(parsed configuration in the dialect of 1.0, seed) -> the package's environment.

    The package imports torchvision without using it, writes files where it stands and takes over logging.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        patch.setattr(logging, "basicConfig", lambda **_: None)
        patch.chdir(tmp_path_factory.mktemp("ctgraph"))
        from gym_CTgraph import CTgraph_env
        from gym_CTgraph.CTgraph_images import CTgraph_images

        patch.setattr(CTgraph_env, "np", NumpyForPackage())

        def build(parsed, seed=0):
            theirs = for_package(parsed)
            images = CTgraph_images(theirs)
            env = CTgraph_env.CTgraphEnv(theirs, images)
            env.set_seed(seed)
            images.rnd.seed(seed + 1)
            # The noise of the package's rewards comes from numpy's global generator.
            np.random.seed(seed + 2)  # noqa: NPY002
            return env, images

        yield build


def play_package(env, path, actions):
    """One episode of the package, to its end or the last action.

    Returns:
        (observations [T + 1, P] uint8 values, rewards, ends, state types)
    """
    env.set_high_reward_path(np.array(path))
    observation, info = env.reset()
    observations, rewards, ends, state_types = [np.ravel(observation)], [], [], [int(info["state"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(int(action))
        assert not truncated
        observations.append(np.ravel(observation))
        rewards.append(reward)
        ends.append(terminated)
        state_types.append(int(info["state"]))
        if terminated:
            break
    return np.array(observations), rewards, ends, state_types


@pytest.mark.parametrize("one_dimensional", [True, False])
@pytest.mark.parametrize("name", SHIPPED)
def test_without_noise_it_is_the_package_step_for_step(package, name, one_dimensional):
    parsed = document(name, image_dataset={"1D": one_dimensional})
    config = ctgraph_config.parse(parsed, name)
    check_step_for_step(package, parsed, *mixed_actions(config))


def test_a_large_set_of_pictures_is_the_package_too(package):
    # Enough pictures to meet every angle that they are turned by, and brightness that leaves room for noise.
    parsed = document(image_dataset={"1D": False, "nr_of_images": 1500, "seed": 9, "noise_on_images_on_read": 7})
    _, images = package(parsed)
    np.testing.assert_array_equal(make(parsed, 1).images[0], images.image.reshape(1500, 144))


@pytest.mark.parametrize("distribution", ["needle_in_haystack", "linear"])
@pytest.mark.parametrize("one_dimensional", [True, False])
@pytest.mark.parametrize("waits, decisions", [(True, False), (False, True), (False, False)])
def test_partial_observability_and_other_rewards_are_the_package_too(
    package, waits, decisions, one_dimensional, distribution
):
    # One image a subset leaves chance no choice, where images are drawn; the subsets of the others hold just enough,
    # the leaves' too few, so that they share images.
    parsed = document(
        "ctgraph_d2_b3",
        reward={"reward_distribution": distribution, "high_reward_value": 0.7, "crash_reward_value": -2},
        observations={
            "MDP_delays": waits,
            "MDP_decisions": decisions,
            "delay_states": [2, 14 if waits else 2],
            "decision_points": [15, 18 if decisions else 15],
            "graph_ends": [16, 17] if waits or decisions else [16, 16],
        },
        image_dataset={"1D": one_dimensional},
    )
    check_step_for_step(package, parsed, *mixed_actions(ctgraph_config.parse(parsed, "test"), count=30))


def mixed_actions(config, count=60):
    """(goals, actions [2d + 3, N]): all leaves walked to with the goal there and elsewhere, and random walks."""
    rng = np.random.default_rng(11)
    walks = every_walk(config.depth, config.branching)
    blind = rng.integers(config.branching + 1, size=(walks.shape[0], count))
    careless = np.where(rng.random(blind.shape) < 0.8, walks[:, rng.integers(walks.shape[1], size=count)], blind)
    actions = np.concatenate([walks, walks, blind, careless], axis=1)
    leaves = np.arange(config.num_leaves)
    return np.concatenate([leaves, leaves[::-1], rng.integers(config.num_leaves, size=2 * count)]), actions


def check_step_for_step(package, parsed, goals, actions):
    """Same image set; then same observations, rewards, ends and state types until the end of every episode."""
    theirs, images = package(parsed)
    env = make(parsed, len(goals))
    np.testing.assert_array_equal(env.images[0], images.image.reshape(len(images.image), -1))
    record = roll(env, keys(len(goals)), [{"leaf": int(goal)} for goal in goals], actions)
    seen = set()
    for i, goal in enumerate(goals):
        observations, rewards, ends, state_types = play_package(theirs, env.paths[goal], actions[:, i])
        length = len(rewards)
        expected = (observations / 255.0).astype(np.float32)
        np.testing.assert_array_equal(record["observations"][: length + 1, i], expected)
        np.testing.assert_array_equal(record["rewards"][:length, i], rewards)
        np.testing.assert_array_equal(record["terminated"][:length, i], ends)
        np.testing.assert_array_equal(record["state_type"][:length, i], state_types[1:])
        seen.update(state_types)
    assert seen == {HOME, WAIT, DECISION, LEAF, CRASH}


# --- the same distributions, where chance plays a part ---


def same_counts(left, right):
    """p-value of: two samples of integers come from one distribution (chi-square on the table of counts)."""
    values = np.union1d(left, right)
    table = np.array([[np.count_nonzero(sample == value) for value in values] for sample in (left, right)])
    # Rare values are pooled, as the test needs expected counts of about five.
    rare = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]) if rare.any() else table
    table = table[:, table.sum(axis=0) > 0]
    return stats.chi2_contingency(table).pvalue


def test_delays_have_the_distribution_of_the_package(package):
    parsed = document(graph_shape={"delay_prob": 0.4})
    theirs, _ = package(parsed)
    env = make(parsed, 1)
    zeros = np.zeros(env.horizon, np.int64)
    their_waits = [play_package(theirs, [0, 0], zeros)[3].count(WAIT) for _ in range(3000)]
    env = make(parsed, 3000)
    record = roll(env, keys(3000), [{"leaf": 0}] * 3000, np.zeros((env.horizon, 3000), np.int64))
    before_crash = ~np.concatenate([np.zeros((1, 3000), bool), record["terminated"][:-1]])
    our_waits = ((record["state_type"] == WAIT) & before_crash).sum(axis=0)
    assert same_counts(our_waits, np.array(their_waits)) > SIGNIFICANCE
    # Visits of one wait state: geometric, P(k) = 0.6 · 0.4ᵏ⁻¹.
    ks = np.arange(1, 7)
    counts = np.array([np.count_nonzero(our_waits == k) for k in ks] + [np.count_nonzero(our_waits > 6)])
    expected = 3000 * np.append(0.6 * 0.4 ** (ks - 1), 0.4**6)
    assert stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


def test_every_wait_state_has_delays_of_its_own():
    parsed = document(graph_shape={"delay_prob": 0.5})
    env = make(parsed, 4000)
    env.set_tasks([{"leaf": 3}] * 4000)
    env.reset(seed=keys(4000))
    state_types, nodes = np.full(4000, HOME), np.zeros(4000, np.int64)
    visits = np.zeros((4000, 3), np.int64)
    while env.running.any():
        _, _, _, truncated, infos = env.step(np.where(state_types == DECISION, 2, 0))
        state_types, nodes = infos["state_type"], infos["node"]
        visits[np.arange(4000), np.searchsorted([1, 3], nodes, side="right")] += env.running & (state_types == WAIT)
    assert not truncated.any()
    for level in range(3):
        # Geometric with success ½: mean 2, variance ½ / ¼ = 2; four standard errors at 4,000 episodes.
        assert visits[:, level].mean() == pytest.approx(2.0, abs=4 * np.sqrt(2 / 4000))
    # Independent: correlations of 4,000 pairs have standard error 1/√4000.
    np.testing.assert_allclose(np.corrcoef(visits.T)[np.triu_indices(3, 1)], 0.0, atol=4 / np.sqrt(4000))


def test_images_drawn_at_random_have_the_distribution_of_the_package(package):
    parsed = document(observations={"MDP_delays": False, "MDP_decisions": False})
    theirs, _ = package(parsed)
    walk = every_walk(2, 2)[:, 1]
    their_images = np.array([play_package(theirs, [0, 0], walk)[0].argmax(axis=1) for _ in range(1500)])
    env = make(parsed, 1500)
    record = roll(env, keys(1500), [{"leaf": 0}] * 1500, np.repeat(walk[:, None], 1500, axis=1))
    our_images = record["observations"].argmax(axis=2).T
    for t in range(8):
        if their_images[:, t].min() == their_images[:, t].max():
            np.testing.assert_array_equal(our_images[:, t], their_images[0, t])
        else:
            assert same_counts(our_images[:, t], their_images[:, t]) > SIGNIFICANCE
    # Two reads of one episode are drawn apart.
    assert (
        same_counts(our_images[:, 1] * 16 + our_images[:, 3], their_images[:, 1] * 16 + their_images[:, 3])
        > SIGNIFICANCE
    )
    # Wait states show images 2…8, decisions 9…11, leaves 12…15.
    assert set(our_images[:, 1]) == set(range(2, 9)) and set(our_images[:, 6]) == set(range(12, 16))


@pytest.mark.parametrize("one_dimensional, rotation", [(True, 1), (False, 1), (False, 25)])
def test_pixel_noise_has_the_distribution_of_the_package(package, one_dimensional, rotation):
    parsed = document(
        image_dataset={"1D": one_dimensional, "noise_on_images_on_read": 6, "small_rotation_on_read": rotation}
    )
    theirs, _ = package(parsed)
    walk = every_walk(2, 2)[:, 2]
    count = 400
    their_pixels = np.array([play_package(theirs, [1, 0], walk)[0] for _ in range(count)])
    env = make(parsed, count)
    record = roll(env, keys(count), [{"leaf": 2}] * count, np.repeat(walk[:, None], count, axis=1))
    our_pixels = np.rint(record["observations"].transpose(1, 0, 2) * 255)
    pvalues = [
        same_counts(our_pixels[:, t, pixel], their_pixels[:, t, pixel])
        for t in range(8)
        for pixel in range(0, our_pixels.shape[2], 5)
        if np.ptp(their_pixels[:, t, pixel]) > 0 or np.ptp(our_pixels[:, t, pixel]) > 0
    ]
    # Many pixels are compared: Bonferroni.
    assert len(pvalues) >= 20
    assert min(pvalues) > SIGNIFICANCE / len(pvalues)
    # Every read has noise of its own, and so has every pixel: correlations of 400 pairs have standard error 1/√400.
    middle = our_pixels.shape[2] // 2 + 5
    assert abs(np.corrcoef(our_pixels[:, 1, middle], our_pixels[:, 2, middle])[0, 1]) < 4 / 20
    if rotation == 1:
        assert abs(np.corrcoef(our_pixels[:, 1, middle], our_pixels[:, 1, middle + 1])[0, 1]) < 4 / 20


def test_rotation_alone_has_the_distribution_of_the_package(package):
    parsed = document(image_dataset={"1D": False, "small_rotation_on_read": 5})
    theirs, _ = package(parsed)
    walk = every_walk(2, 2)[:, 0]
    env = make(parsed, 600)
    record = roll(env, keys(600), [{"leaf": 1}] * 600, np.repeat(walk[:, None], 600, axis=1))
    our_pixels = np.rint(record["observations"].transpose(1, 0, 2) * 255)
    their_pixels = np.array([play_package(theirs, [0, 1], walk)[0] for _ in range(600)])

    def angle(pixels, image):
        """Which of the angles 0° to 4° an image is shown at."""
        matches = (pixels[:, None] == env.images[:, image]).all(axis=2)
        assert (matches.sum(axis=1) == 1).all()
        return matches.argmax(axis=1)

    # The second decision (image 10), and the wait state after it (image 5): two reads, drawn apart.
    ours, theirs = (5 * angle(pixels[:, 4], 10) + angle(pixels[:, 5], 5) for pixels in (our_pixels, their_pixels))
    assert len(np.unique(ours)) == 25
    assert same_counts(ours, theirs) > SIGNIFICANCE


@pytest.mark.parametrize("distribution", ["needle_in_haystack", "linear"])
def test_reward_noise_has_the_distribution_of_the_package(package, distribution):
    parsed = document(
        reward={
            "stochastic_sampling": True,
            "reward_std": 0.3,
            "reward_distribution": distribution,
            "high_reward_value": 2.0,
        }
    )
    theirs, _ = package(parsed)
    walk = every_walk(2, 2)[:, 2]
    # Goal right/right, reached right/left: 2/3 of the reward where early decisions count, else nothing.
    goal = [1, 0] if distribution == "needle_in_haystack" else [1, 1]
    episodes = [play_package(theirs, goal, walk) for _ in range(2000)]
    their_rewards = np.array([episode[1][5] for episode in episodes])
    env = make(parsed, 2000)
    leaf = 2 if distribution == "needle_in_haystack" else 3
    record = roll(env, keys(2000), [{"leaf": leaf}] * 2000, np.repeat(walk[:, None], 2000, axis=1))
    rewards = record["rewards"][5]
    assert stats.ks_2samp(rewards, their_rewards).pvalue > SIGNIFICANCE
    mean = 2.0 if distribution == "needle_in_haystack" else 4 / 3
    assert stats.kstest(rewards, "norm", args=(mean, 0.3 * mean)).pvalue > SIGNIFICANCE
    # The cue is 254 · r / 2, cut to an integer and to eight bits, here and there.
    for cues, earned in (
        (np.rint(record["observations"][6, :, -1] * 255), rewards),
        ([episode[0][6][-1] for episode in episodes], their_rewards),
    ):
        np.testing.assert_array_equal(cues, np.trunc(254 * (earned / 2.0)) % 256)
