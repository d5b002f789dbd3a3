import numpy as np
import pytest
from scipy import stats
from skimage.transform import rotate

from rl import streams
from rl.envs.contract import keys, roll
from rl.envs.ctgraph import config as ctgraph_config
from rl.envs.ctgraph import images
from rl.envs.ctgraph.environment import DECISION, HOME, LEAF, WAIT
from rl.errors import UserError
from tests.support.ctgraph_documents import FOLDER, NOISY, SIGNIFICANCE, document, every_walk, make
from tests.support.env_contract import EnvironmentContract


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


class TestEverythingRandom(CTGraphContract):
    """Delays, random images, pixel noise, rotation and reward noise at once."""

    def options(self):
        return {"config": ctgraph_config.parse(document(**NOISY), "test")}


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


def test_the_goal_never_moves_by_itself():
    env = make(document(reward={"min_static_reward_episodes": 1, "max_static_reward_episodes": 2}), 3)
    env.set_tasks([{"leaf": leaf} for leaf in (0, 1, 3)])
    walk = every_walk(2, 2)[:, [0, 1, 3]]
    for _ in range(10):
        env.reset()
        rewards = [env.step(action)[1] for action in walk]
        np.testing.assert_array_equal(np.sum(rewards, axis=0), 1.0)


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
    np.testing.assert_array_equal(images.rotate_each(pictures, angles), expected)


def test_every_way_to_read_a_picture_shows_the_same_set():
    static = document("ctgraph_d2", image_dataset={"1D": False})
    turned = document("ctgraph_d2", image_dataset={"1D": False, "small_rotation_on_read": 3})
    np.testing.assert_array_equal(make(turned, 1).images[0], make(static, 1).images[0])
    assert make(turned, 1).images.shape == (3, 16, 144) and make(static, 1).images.shape == (1, 16, 144)
