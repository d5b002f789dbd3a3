"""The CT-graph against its definition, the package gym-CTgraph 1.0, and against known answers."""

import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.transform import rotate

import rl.envs.ctgraph
from rl import streams
from rl.envs import ctgraph_config, ctgraph_images
from rl.envs.ctgraph import CRASH, DECISION, HOME, LEAF, WAIT, CTGraph
from rl.errors import UserError
from tests.env_contract import EnvironmentContract, keys, roll

FOLDER = Path(rl.envs.ctgraph.__file__).with_name("ctgraph")
SHIPPED = ["ctgraph_d2", "ctgraph_d3", "ctgraph_d4", "ctgraph_d2_b3"]

# Two samples are called different below this p-value: one false alarm in a thousand, had the seeds not been fixed.
SIGNIFICANCE = 1e-3


def document(name="ctgraph_d2", **changes):
    """A shipped configuration as JSON holds it, changed by section: document(reward={"reward_std": 0.5})."""
    parsed = json.loads((FOLDER / f"{name}.json").read_text())
    for section, entries in changes.items():
        assert entries.keys() <= parsed[section].keys()
        parsed[section] |= entries
    return parsed


def make(parsed, num_envs):
    return CTGraph(num_envs, ctgraph_config.parse(parsed, "test"))


NOISY = {
    "graph_shape": {"delay_prob": 0.3},
    "reward": {"stochastic_sampling": True, "reward_std": 0.1, "reward_distribution": "linear"},
    "observations": {"MDP_delays": False, "MDP_decisions": False},
    "image_dataset": {"1D": False, "noise_on_images_on_read": 20, "small_rotation_on_read": 30},
}


class CTGraphContract(EnvironmentContract):
    name = "CTgraphEnvGoalChange-v0"

    def draw_actions(self, env, num_steps, rng):
        """Mostly right actions for an episode without delays: one in eight is drawn blindly."""
        branches = env.single_action_space.n - 1
        actions = rng.integers(1, branches + 1, size=(num_steps, env.num_envs))
        actions[1::2] = 0
        blind = rng.random(actions.shape) < 0.125
        return np.where(blind, rng.integers(branches + 1, size=actions.shape), actions)


class TestDepth2(CTGraphContract):
    config_path = FOLDER / "ctgraph_d2.json"


class TestDepth4(CTGraphContract):
    config_path = FOLDER / "ctgraph_d4.json"


class TestBranching3(CTGraphContract):
    config_path = FOLDER / "ctgraph_d2_b3.json"


class TestEverythingRandom(CTGraphContract):
    """Delays, random images, pixel noise, rotation and reward noise at once."""

    def options(self):
        return {"config": ctgraph_config.parse(document(**NOISY), "test")}


# --- the package ---


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


# The names of 2021 -> those of its later form, and those of gym-CTgraph 1.0, where they differ.
LATER_2021 = {
    "delay_prob": "wait_prob",
    "MDP_delays": "MDP_wait_s",
    "MDP_decisions": "MDP_decision_s",
    "delay_states": "wait_states",
    "decision_points": "decision_states",
}
VERSION_1 = {
    "depth": "d",
    "branching_factor": "b",
    "delay_prob": "p",
    "high_reward_value": "high_r",
    "crash_reward_value": "fail_r",
    "reward_std": "std_r",
    "MDP_delays": "MDP_W",
    "MDP_decisions": "MDP_D",
    "delay_states": "W_IDs",
    "decision_points": "D_IDs",
    "noise_on_images_on_read": "noise_on_read",
    "small_rotation_on_read": "rotation_on_read",
}


def renamed(parsed, names):
    """The same configuration with other names for its keys."""
    if not isinstance(parsed, dict):
        return parsed
    return {names.get(name, name): renamed(value, names) for name, value in parsed.items()}


def for_package(parsed):
    """A configuration of 2021 in the dialect of 1.0, whose reward noise is off only at standard deviation 0."""
    theirs = renamed(parsed, VERSION_1)
    if not theirs["reward"].pop("stochastic_sampling"):
        theirs["reward"]["std_r"] = 0.0
    return theirs


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


def every_walk(depth, branching):
    """The right actions to each leaf in turn: any, 0, choice, 0, choice, …, 0, any; [2d + 3, leaves]."""
    paths = np.stack(np.unravel_index(np.arange(branching**depth), (branching,) * depth))
    actions = np.zeros((2 * depth + 3, paths.shape[1]), np.int64)
    actions[2:-2:2] = paths + 1
    return actions


@pytest.mark.parametrize("one_dimensional", [True, False])
@pytest.mark.parametrize("name", SHIPPED)
def test_without_noise_it_is_the_package_step_for_step(package, name, one_dimensional):
    parsed = document(name, image_dataset={"1D": one_dimensional})
    config = ctgraph_config.parse(parsed, name)
    check_step_for_step(package, parsed, *mixed_actions(config))


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


def test_rotation_alone_has_the_distribution_of_the_package(package):
    parsed = document(image_dataset={"1D": False, "small_rotation_on_read": 5})
    theirs, _ = package(parsed)
    walk = every_walk(2, 2)[:, 0]
    env = make(parsed, 600)
    record = roll(env, keys(600), [{"leaf": 1}] * 600, np.repeat(walk[:, None], 600, axis=1))
    # A picture of the second decision, at the angles 0° to 4°: which of the five is it?
    catalogue = (env.images[:, 10] / 255.0).astype(np.float32)
    ours = (record["observations"][4][:, None] == catalogue).all(axis=2)
    assert (ours.sum(axis=1) == 1).all()
    their_pixels = np.array([play_package(theirs, [0, 1], walk)[0][4] for _ in range(600)])
    same = (their_pixels[:, None] == env.images[:, 10]).all(axis=2)
    assert (same.sum(axis=1) == 1).all()
    assert same_counts(ours.argmax(axis=1), same.argmax(axis=1)) > SIGNIFICANCE
    # Angles are drawn anew at every read.
    third = (record["observations"][5][:, None] == (env.images[:, 3] / 255.0).astype(np.float32)).all(axis=2)
    assert (third.argmax(axis=1) != ours.argmax(axis=1)).any()


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


def test_where_the_2021_code_has_no_reward_noise_there_is_none():
    parsed = document(reward={"stochastic_sampling": False, "reward_std": 0.3})
    assert ctgraph_config.parse(parsed, "test").reward_std == 0.0
    assert ctgraph_config.parse(document(reward={"stochastic_sampling": True, "reward_std": 0.3}), "").reward_std == 0.3
    # The dialect of 1.0 leaves the key out and always applies its standard deviation.
    theirs = for_package(document(reward={"stochastic_sampling": True, "reward_std": 0.3}))
    assert "stochastic_sampling" not in theirs["reward"]
    assert ctgraph_config.parse(theirs, "test").reward_std == 0.3


def test_the_goal_never_moves_by_itself():
    env = make(document(reward={"min_static_reward_episodes": 1, "max_static_reward_episodes": 2}), 3)
    env.set_tasks([{"leaf": leaf} for leaf in (0, 1, 3)])
    walk = every_walk(2, 2)[:, [0, 1, 3]]
    for _ in range(10):
        env.reset()
        rewards = [env.step(action)[1] for action in walk]
        np.testing.assert_array_equal(np.sum(rewards, axis=0), 1.0)


# --- pictures ---


def test_rotating_many_pictures_is_rotating_each():
    rng = np.random.default_rng(6)
    pictures = rng.integers(0, 255, size=(40, 144)).astype(np.uint8)
    # Pictures without black are clipped by another rule than those with it.
    pictures[:20] = np.maximum(pictures[:20], 40)
    angles = np.tile([0, 1, 2, 17, 45, 90, 180, 271, 359, 100], 4)
    expected = [
        rotate(picture.reshape(12, 12).astype(np.float64), angle).astype(np.uint8).ravel()
        for picture, angle in zip(pictures, angles, strict=True)
    ]
    np.testing.assert_array_equal(ctgraph_images.rotate_each(pictures, angles), expected)


def test_every_way_to_read_a_picture_shows_the_same_set():
    static = document("ctgraph_d2", image_dataset={"1D": False})
    turned = document("ctgraph_d2", image_dataset={"1D": False, "small_rotation_on_read": 3})
    np.testing.assert_array_equal(make(turned, 1).images[0], make(static, 1).images[0])
    assert make(turned, 1).images.shape == (3, 16, 144) and make(static, 1).images.shape == (1, 16, 144)


# --- configuration files ---


@pytest.mark.parametrize("names", [LATER_2021, VERSION_1])
def test_three_dialects_say_the_same(names):
    parsed = document(**NOISY)
    assert ctgraph_config.parse(renamed(parsed, names), "test") == ctgraph_config.parse(parsed, "test")


@pytest.mark.parametrize(
    "section, key, value, rule",
    [
        ("graph_shape", "depth", 0, "integer from 1 to 16"),
        ("graph_shape", "depth", 17, "integer from 1 to 16"),
        ("graph_shape", "depth", 2.0, "integer from 1 to 16"),
        ("graph_shape", "depth", True, "integer from 1 to 16"),
        ("graph_shape", "branching_factor", 1, "integer from 2"),
        ("graph_shape", "branching_factor", 300, "at most 65536 leaves, got 300"),
        ("graph_shape", "branching_factor", 3, "decision_points|delay_states"),
        ("graph_shape", "delay_prob", 1.0, "must lie in"),
        ("graph_shape", "delay_prob", -0.1, "number from 0 to 1"),
        ("graph_shape", "delay_prob", float("nan"), "number from 0 to 1"),
        ("graph_shape", "delay_prob", "0.5", "number from 0 to 1"),
        ("reward", "high_reward_value", 0, "at least 1e-06 in size"),
        ("reward", "high_reward_value", float("inf"), "number from"),
        ("reward", "high_reward_value", 10**400, "number from"),
        ("reward", "crash_reward_value", None, "number from"),
        ("reward", "stochastic_sampling", 0, "true or false"),
        ("reward", "reward_std", -1, "number from 0"),
        ("reward", "reward_distribution", "uniform", "one of needle_in_haystack, linear"),
        ("reward", "reward_distribution", [], "one of needle_in_haystack, linear"),
        ("reward", "min_static_reward_episodes", 0.5, "integer"),
        ("observations", "MDP_delays", "yes", "true or false"),
        ("observations", "delay_states", [2, 7], "at least 7 images, one a state, got 6"),
        ("observations", "decision_points", [9, 10], "at least 3 images, one a state, got 2"),
        ("observations", "decision_points", [1, 11], "images 0 and 1, which belong to home and crash"),
        ("observations", "graph_ends", [12, 16], "first <= last < 16 images"),
        ("observations", "graph_ends", [13, 12], "first <= last < 16 images"),
        ("observations", "graph_ends", [12], "two image numbers"),
        ("observations", "graph_ends", [12, 14.5], "two image numbers"),
        ("observations", "graph_ends", {"first": 12}, "two image numbers"),
        ("image_dataset", "1D", 1, "true or false"),
        ("image_dataset", "nr_of_images", 15, "graph_ends must be .* < 15 images"),
        ("image_dataset", "nr_of_images", 10**6, "integer from 3 to 4096"),
        ("image_dataset", "seed", -1, "integer from 0"),
        ("image_dataset", "noise_on_images_on_read", 255, "integer from 0 to 254"),
        ("image_dataset", "small_rotation_on_read", 361, "integer from 0 to 360"),
    ],
)
def test_a_broken_rule_is_named(section, key, value, rule):
    with pytest.raises(UserError, match=rule) as caught:
        ctgraph_config.parse(document(**{section: {key: value}}), "some/file.json")
    assert str(caught.value).startswith("some/file.json: ") and "\n" not in str(caught.value)
    if "images" not in key and "|" not in rule:
        assert f"{section}.{key}" in str(caught.value)


def test_pictures_must_be_read_at_some_angle():
    with pytest.raises(UserError, match="small_rotation_on_read must be an integer from 1 to 360, got 0"):
        ctgraph_config.parse(document(image_dataset={"1D": False, "small_rotation_on_read": 0}), "test")


def places(parsed):
    """(container, key) of every value in a JSON document."""
    for key, value in parsed.items() if isinstance(parsed, dict) else enumerate(parsed):
        yield parsed, key
        if isinstance(value, dict | list):
            yield from places(value)


@pytest.mark.parametrize("names", [{}, LATER_2021, VERSION_1])
def test_every_missing_key_is_named(names):
    complete = renamed(document(), names)
    for index, (container, _) in enumerate(places(complete)):
        if isinstance(container, dict):
            broken = renamed(document(), names)
            container, key = list(places(broken))[index]
            del container[key]
            if names is VERSION_1 and key == "stochastic_sampling":
                continue
            with pytest.raises(UserError, match=f"{key}.* is missing"):
                ctgraph_config.parse(broken, "test")


def test_unknown_and_doubled_keys_are_named():
    for section in ("graph_shape", None):
        broken = document()
        (broken[section] if section else broken)["dept"] = 3
        with pytest.raises(UserError, match=r"unknown key 'dept' in .*; expected .*"):
            ctgraph_config.parse(broken, "test")
    broken = document()
    broken["graph_shape"]["d"] = 3
    with pytest.raises(UserError, match="gives one setting twice, as depth and d"):
        ctgraph_config.parse(broken, "test")


@pytest.mark.parametrize(
    "content, rule",
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "not valid JSON"),
        (b'{"reward": {}, "reward": {}}', "key 'reward' is given twice"),
        (b" " * (2**20 + 1), "larger than"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "section 'graph_shape' is missing"),
        (b'{"graph_shape": 3}', "section 'graph_shape' must be a JSON object, got 3"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, rule):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as caught:
        ctgraph_config.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json", "/dev/zero", "a\0b"):
        with pytest.raises(UserError, match="no such configuration file"):
            ctgraph_config.read(path)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(0, 20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(SHIPPED))
def test_any_value_anywhere_is_a_configuration_or_a_user_error(data, name):
    parsed = document(name)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(parsed))))
        container[key] = data.draw(ANY_JSON)
        if not parsed:
            break
    try:
        env = make(parsed, 2)
    except UserError as error:
        assert str(error).startswith("test: ") and "\n" not in str(error)
        return
    env.reset(seed=1)
    env.step(np.array([0, 0]))


# --- known answers ---


def test_depth_2_by_hand():
    env = make(document(), 3)
    # Goal leaf 2 is right (branch 2), then left (branch 1). Episode 0 goes there, 1 goes left and left, 2 crashes.
    actions = np.array([[1, 0, 2, 0, 1, 0, 0], [0, 0, 1, 0, 1, 0, 2], [2, 0, 0, 0, 0, 0, 0]]).T
    record = roll(env, keys(3), [{"leaf": 2}] * 3, actions)
    np.testing.assert_array_equal(
        record["rewards"].T, [[0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0], [0, 0, -0.01, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(record["terminated"].argmax(axis=0), [6, 6, 2])
    assert not record["truncated"].any() and env.horizon == 7
    np.testing.assert_array_equal(record["state_type"][:, 0], [WAIT, DECISION, WAIT, DECISION, WAIT, LEAF, HOME])
    # Nodes: root 0, its children 1 and 2, theirs 3…6; right then left is 2, then 5.
    np.testing.assert_array_equal(record["node"][:, 0], [0, 0, 2, 2, 5, 5, 0])
    # Images: waits 2 + node, decisions 9 + node, leaves 12 + node modulo 4: leaf node 5 shows 12 + 1.
    np.testing.assert_array_equal(record["observations"][:, 0, :16].argmax(axis=1), [0, 2, 9, 4, 11, 7, 13, 0])
    # The brightest pixel is 254; the last entry shows the reward.
    assert record["observations"][1, 0].max() == np.float32(254 / 255)
    np.testing.assert_array_equal(record["observations"][:, 0, 16], np.float32([0, 0, 0, 0, 0, 0, 254 / 255, 0]))
    np.testing.assert_array_equal(record["observations"][3, 2].argmax(), 1)


def test_linear_rewards_count_early_decisions_more():
    env = make(document("ctgraph_d3", reward={"reward_distribution": "linear"}), 8)
    record = roll(env, keys(8), [{"leaf": 0}] * 8, every_walk(3, 2))
    # Weights 3, 2, 1: each right decision earns its weight of 6.
    np.testing.assert_allclose(record["rewards"][7], np.array([6, 5, 4, 3, 3, 2, 1, 0]) / 6, atol=1e-15)


@pytest.mark.parametrize(
    "name, images", [("ctgraph_d2", 16), ("ctgraph_d3", 32), ("ctgraph_d4", 64), ("ctgraph_d2_b3", 28)]
)
def test_shipped_files(name, images):
    config = ctgraph_config.read(FOLDER / f"{name}.json")
    assert config.num_images == images == 2 + config.num_waits + config.num_decisions + config.num_leaves
    assert config.horizon == 2 * config.depth + 3
    assert (config.high_reward, config.crash_reward, config.delay_probability) == (1.0, -0.01, 0.0)
    assert config.mdp_waits and config.mdp_decisions and config.one_dimensional
    assert (config.wait_images[0], config.decision_images[0], config.leaf_images[1]) == (
        2,
        config.wait_images[1] + 1,
        images - 1,
    )


def test_goals_are_uniform_over_the_leaves():
    env = make(document("ctgraph_d2_b3"), 1)
    leaves = [task["leaf"] for task in env.sample_tasks(3000, "test", np.random.default_rng(2))]
    assert stats.chisquare(np.bincount(leaves, minlength=9)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("leaf", [-1, 4, 1.0, "0", None])
def test_a_wrong_goal_is_refused(leaf):
    with pytest.raises(ValueError, match="a leaf is an integer from 0 to 3"):
        make(document(), 1).set_tasks([{"leaf": leaf}])


def test_the_horizon_leaves_room_for_delays():
    config = ctgraph_config.parse(document(graph_shape={"delay_prob": 0.5}), "test")
    delays = config.horizon - 7
    # Three wait states: the delays are negative binomial(3, ½).
    assert stats.nbinom.sf(delays, 3, 0.5) < 1e-6 <= stats.nbinom.sf(delays - 1, 3, 0.5)
    with pytest.raises(UserError, match="more than 10000 steps"):
        ctgraph_config.parse(document(graph_shape={"delay_prob": 1 - 1e-12}), "test")


def test_nothing_is_drawn_that_the_configuration_does_not_need(monkeypatch):
    monkeypatch.setattr(streams, "generator", None)
    roll(make(document(), 2), keys(2), [{"leaf": 0}] * 2, every_walk(2, 2)[:, :2])
