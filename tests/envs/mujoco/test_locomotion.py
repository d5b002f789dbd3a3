"""Half-Cheetah and Ant against a plain twin: one episode at a time, on `mj_step` alone."""

import json

import mujoco
import numpy as np
import pytest

from rl import streams
from rl.envs.base import ScalarEnv
from rl.envs.mujoco.ant import Ant, AntDir, AntPos, AntVel
from rl.envs.mujoco.half_cheetah import HalfCheetahDir, HalfCheetahVel
from rl.envs.mujoco.locomotion import MODELS
from rl.errors import UserError
from tests.support.env_contract import EnvironmentContract

TASKS = {
    HalfCheetahDir: [{"direction": 1}, {"direction": -1}, {"direction": 1}],
    HalfCheetahVel: [{"velocity": 0.0}, {"velocity": 0.7}, {"velocity": 2.0}],
    AntDir: [{"direction": 1}, {"direction": -1}, {"direction": -1}],
    AntVel: [{"velocity": 0.0}, {"velocity": 1.3}, {"velocity": 3.0}],
    AntPos: [{"goal": [0.0, 0.0]}, {"goal": [-3.0, 1.5]}, {"goal": [2.0, -2.5]}],
}
EVERY = pytest.mark.parametrize("env_class", TASKS, ids=lambda env_class: env_class.env_id)
SEEDS = [11, 12, 13]


class TestHalfCheetahDir(EnvironmentContract):
    name = "HalfCheetahDir-v1"


class TestHalfCheetahVel(EnvironmentContract):
    name = "HalfCheetahVel-v1"


class TestAntDir(EnvironmentContract):
    name = "AntDir-v1"


class TestAntVel(EnvironmentContract):
    name = "AntVel-v1"


class TestAntPos(EnvironmentContract):
    name = "AntPos-v0"


class Twin:
    """One episode, written from the definitions of the tasks."""

    def __init__(self, env_class, task, seed):
        self.name, self.task = env_class.env_id, task
        self.cheetah = self.name.startswith("HalfCheetah")
        self.model = mujoco.MjModel.from_xml_path(str(MODELS / ("half_cheetah.xml" if self.cheetah else "ant.xml")))
        self.data = mujoco.MjData(self.model)
        rng = streams.generator(seed)
        self.data.qpos += rng.uniform(-0.1, 0.1, self.model.nq)
        self.data.qvel += 0.1 * rng.standard_normal(self.model.nv)
        self.derive()

    def derive(self):
        self.data.qacc_warmstart[:] = 0
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_rnePostConstraint(self.model, self.data)

    def observation(self):
        data, torso = self.data, self.data.body("torso")
        if self.cheetah:
            parts = data.qpos[1:], data.qvel, torso.xpos
        else:
            parts = data.qpos, data.qvel, np.clip(data.cfrc_ext, -1, 1).ravel(), torso.xmat, torso.xpos
        return np.concatenate(parts).astype(np.float32)

    def step(self, action):
        """(observation, reward, terminated)"""
        data = self.data
        action = np.clip(action.astype(np.float64), -1, 1)
        x_before = data.qpos[0]
        data.ctrl[:] = action
        data.qacc_warmstart[:] = 0  # the environment's convention: once an environment step
        for _ in range(5):
            mujoco.mj_step(self.model, data)
        self.derive()

        velocity = (data.qpos[0] - x_before) / 0.05
        if "Dir" in self.name:
            reward = self.task["direction"] * velocity
        elif "Vel" in self.name:
            reward = -abs(velocity - self.task["velocity"]) + (0 if self.cheetah else 1)
        else:
            x, y = self.task["goal"]
            reward = -(abs(data.qpos[0] - x) + abs(data.qpos[1] - y)) + 4
        if self.cheetah:
            reward -= 0.05 * sum(action**2)
            return self.observation(), reward, False
        reward -= 0.005 * sum(action**2)
        reward -= 0.0005 * sum(np.clip(data.cfrc_ext, -1, 1).ravel() ** 2)
        reward += 0.05
        return self.observation(), reward, not 0.2 <= data.qpos[2] <= 1.0


def ready(env_class):
    env = env_class(3)
    env.set_tasks(TASKS[env_class])
    env.reset(seed=SEEDS)
    return env


@EVERY
def test_two_hundred_random_steps_agree_with_the_plain_twin(env_class):
    env = env_class(3)
    env.set_tasks(TASKS[env_class])
    observations, _ = env.reset(seed=SEEDS)
    twins = [Twin(env_class, *pair) for pair in zip(TASKS[env_class], SEEDS, strict=True)]
    np.testing.assert_array_equal(observations, [twin.observation() for twin in twins])
    rng = np.random.default_rng(0)
    ended = np.zeros(3, bool)
    for step in range(200):
        actions = rng.uniform(-1.3, 1.3, env.action_space.shape).astype(np.float32)
        observations, rewards, terminated, truncated, infos = env.step(actions)
        for i, twin in enumerate(twins):
            expected, reward = twin.observation(), 0.0
            if not ended[i]:
                expected, reward, ended[i] = twin.step(actions[i])
            np.testing.assert_array_equal(env.qpos[i], twin.data.qpos)
            np.testing.assert_array_equal(env.qvel[i], twin.data.qvel)
            np.testing.assert_array_equal(observations[i], expected)
            assert rewards[i] == pytest.approx(reward, rel=1e-13, abs=1e-13)
        np.testing.assert_array_equal(terminated, ended)
        np.testing.assert_array_equal(truncated, ~ended & (step == 199))
        assert not infos["unstable"].any()
    assert observations.dtype == np.float32


@EVERY
def test_an_episode_does_not_depend_on_its_neighbours(env_class):
    env, scalar = ready(env_class), ScalarEnv(env_class(1))
    scalar.set_tasks(TASKS[env_class][1:2])
    observation, _ = scalar.reset(seed=SEEDS[1])
    np.testing.assert_array_equal(env.observe()[1], observation)
    # A neighbour ends at once, so the others change their places in the batch that is simulated.
    env.qvel[0] = 1e12
    rng = np.random.default_rng(1)
    for _ in range(50):
        actions = rng.uniform(-1, 1, env.action_space.shape)
        observations, rewards, terminated, *_ = env.step(actions)
        observation, reward, *_ = scalar.step(actions[1])
        assert terminated[0]
        np.testing.assert_array_equal(observations[1], observation)
        assert rewards[1] == reward
        if isinstance(env, Ant):  # to the last bit, which float32 hides: the solver's start shows there
            np.testing.assert_array_equal(env._forces[1], scalar.vector_env._forces[0])


@pytest.mark.parametrize(
    ("env_class", "goal", "velocity", "position", "task_reward", "robot_reward"),
    [
        # robot: −0.05 · 6 actuators · 0.5²
        (HalfCheetahDir, -1, 1.5, [9.0, 9.0], -1.5, -0.075),
        (HalfCheetahVel, 2.0, 0.5, [9.0, 9.0], -1.5, -0.075),
        # robot: 0.05 − 0.005 · 8 actuators · 0.5² − 0.0005 · 84 forces · 0.5²
        (AntDir, -1, 1.5, [9.0, 9.0], -1.5, 0.0295),
        (AntVel, 3.0, 0.5, [9.0, 9.0], -2.5 + 1, 0.0295),
        # task: 4 − |1 − 3| − |−1 − 0.5|
        (AntPos, [3.0, 0.5], 9.0, [1.0, -1.0], 0.5, 0.0295),
    ],
)
def test_rewards_known_answers(env_class, goal, velocity, position, task_reward, robot_reward):
    env = env_class(1)
    if isinstance(env, Ant):
        env._forces[:] = 0.5
    actions = np.full(env.action_space.shape, 0.5)
    paid = env.task_reward(np.array([goal], float), np.array([velocity]), np.array([position]))
    np.testing.assert_allclose(paid, [task_reward], rtol=1e-14)
    np.testing.assert_allclose(env.robot_reward(actions, np.array([0])), [robot_reward], rtol=1e-14)


def test_actions_map_affinely_onto_the_actuator_range(tmp_path):
    # [−1, 1] onto [−0.5, 1.5]: a -> 0.5 + a
    xml = (MODELS / "half_cheetah.xml").read_text().replace('ctrlrange="-1 1"', 'ctrlrange="-0.5 1.5"')
    (tmp_path / "shifted.xml").write_text(xml)

    class Shifted(HalfCheetahDir):
        model_file = tmp_path / "shifted.xml"

    env = Shifted(1)
    env.reset(seed=3)
    data = mujoco.MjData(env.model)
    data.qpos, data.qvel = env.qpos[0], env.qvel[0]
    data.ctrl[:] = [1.5, -0.5, 0.5, 1.0, 0.0, 1.5]
    for _ in range(5):
        mujoco.mj_step(env.model, data)
    env.step(np.array([[1.0, -1.0, 0.0, 0.5, -0.5, 7.0]]))
    np.testing.assert_array_equal(env.qpos[0], data.qpos)


def test_torso_height_bounds_of_the_ant():
    env = AntVel(5)
    env.qpos[:, 2] = [0.199, 0.2, 0.6, 1.0, 1.001]
    assert env.fallen().tolist() == [True, False, False, False, True]


# MuJoCo rejects a velocity of 1e12 at once, and the accelerations that 1e7 leads to.
@pytest.mark.parametrize(("env_class", "velocity"), [(HalfCheetahVel, 1e12), (HalfCheetahVel, 1e7), (AntVel, 1e12)])
def test_an_unstable_episode_ends_with_its_last_observation_and_the_others_go_on(
    env_class, velocity, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)  # MuJoCo would leave a log file here
    env, sound = ready(env_class), ready(env_class)
    env.qvel[1] = velocity
    last = env.observe()
    actions = np.full(env.action_space.shape, 0.5)
    for step in range(3):
        observations, rewards, terminated, _, infos = env.step(actions)
        expected, expected_rewards, *_ = sound.step(actions)
        np.testing.assert_array_equal(observations[[0, 2]], expected[[0, 2]])
        np.testing.assert_array_equal(rewards[[0, 2]], expected_rewards[[0, 2]])
        np.testing.assert_array_equal(observations[1], last[1])
        assert np.isfinite(rewards).all()
        assert terminated.tolist() == [False, True, False]
        assert infos["unstable"].tolist() == [False, step == 0, False]
    env.reset(seed=SEEDS, options={"reset_mask": np.array([False, True, False])})
    *_, terminated, _, infos = env.step(actions)
    assert not terminated.any() and not infos["unstable"].any()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -2e10])  # MuJoCo's bound is 1e10
def test_a_bad_state_after_the_last_physics_step_is_unstable(value):
    class Diverging:
        def rollout(self, models, data, states, controls, *, nstep, state, skip_checks):
            state[:] = 0.5
            state[:, :, 0] = 0.01 * np.arange(1, 6)
            state[1, -1, 7] = value

    env = ready(AntVel)
    env._rollout = Diverging()
    last = env.observe()
    observations, rewards, _, _, infos = env.step(np.zeros(env.action_space.shape))
    assert infos["unstable"].tolist() == [False, True, False]
    np.testing.assert_array_equal(observations[1], last[1])
    assert (observations[[0, 2], :29] == 0.5).all()
    assert np.isfinite(rewards).all()


def test_the_warning_handler_of_others_survives():
    heard = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        env = ready(HalfCheetahVel)
        env.qvel[1] = 1e12
        env.step(np.zeros(env.action_space.shape))
        assert heard == []
        data = mujoco.MjData(env.model)
        data.qvel[:] = 1e12
        mujoco.mj_step(env.model, data)
        assert len(heard) == 1
    finally:
        mujoco.set_mju_user_warning(None)


@EVERY
def test_a_non_finite_action_is_refused_by_environment_task_and_episode(env_class):
    env = ready(env_class)
    actions = np.zeros(env.action_space.shape, np.float32)
    env.qvel[0] = 1e12
    env.step(actions)
    actions[:2, 3] = np.nan  # episode 0 has ended: its action means nothing
    with pytest.raises(UserError) as error:
        env.step(actions)
    message = str(error.value)
    assert env_class.env_id in message and str(TASKS[env_class][1]) in message and "episode 1" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("env_class", "task"),
    [
        (HalfCheetahDir, {"velocity": 1.0}),
        (HalfCheetahVel, {"velocity": np.inf}),
        (HalfCheetahVel, {"velocity": [1.0, 2.0]}),
        (AntPos, {"goal": 1.0}),
        (AntPos, {"goal": [1.0, np.nan]}),
    ],
)
def test_a_bad_task_is_refused(env_class, task):
    good = TASKS[env_class][0]
    with pytest.raises(ValueError, match=f"{env_class.env_id}, episode 1: .*expected"):
        env_class(2).set_tasks([good, task])


@pytest.mark.parametrize(
    ("env_class", "key", "low", "high"),
    [
        (HalfCheetahVel, "velocity", 0.0, 2.0),
        (AntVel, "velocity", 0.0, 3.0),
        (AntPos, "goal", -3.0, 3.0),
    ],
)
def test_continuous_tasks_fill_their_range(env_class, key, low, high):
    tasks = env_class(1).sample_tasks(2000, "train", np.random.default_rng(0))
    assert json.loads(json.dumps(tasks)) == tasks
    assert len(tasks) == 2000 and all(list(task) == [key] for task in tasks)
    values = np.array([task[key] for task in tasks]).reshape(2000, -1)
    assert values.shape[1] == (2 if key == "goal" else 1)
    width = high - low
    assert (low <= values).all() and (values <= high).all()
    # An extreme misses the outer hundredth of the range with probability 0.99²⁰⁰⁰ < 1e-8; the mean of 2000 uniform
    # numbers has standard deviation width / sqrt(12 · 2000), here taken five times.
    assert (values.min(0) < low + 0.01 * width).all() and (values.max(0) > high - 0.01 * width).all()
    assert (np.abs(values.mean(0) - (low + high) / 2) < 5 * width / np.sqrt(12 * 2000)).all()


def test_there_are_two_directions():
    for wrong in (0, 5, 0.3):
        with pytest.raises(ValueError, match="expected 1 or -1 as 'direction'"):
            HalfCheetahDir(1).set_tasks([{"direction": wrong}])
    assert HalfCheetahVel.task_label({"velocity": 1}) == HalfCheetahVel.task_label({"velocity": 1.0}) != ""


@pytest.mark.parametrize("env_class", [HalfCheetahDir, AntDir])
def test_directions_are_even(env_class):
    tasks = env_class(1).sample_tasks(2000, "test", np.random.default_rng(0))
    assert json.loads(json.dumps(tasks)) == tasks
    directions = [task["direction"] for task in tasks]
    assert set(directions) == {-1, 1}
    assert abs(sum(directions)) < 5 * np.sqrt(2000)
