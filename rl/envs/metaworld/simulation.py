"""Meta-World 3.1.1, stepped with less Python around the physics: the same observations, rewards and infos.

A `Simulation` holds the one MuJoCo model and state of a Meta-World class; an `Episode` is what belongs to one episode:
its integration state and the attributes of the environment. Episodes take turns on their simulation, so a process
needs 4 MB a class, however many episodes it steps side by side.

An episode's class is derived from Meta-World's own: the reward and observation functions are the package's code, run
over quicker stand-ins for the utilities that they call (`reward_math`); the package itself stays as it is.
"""

import collections
import functools
import math
import pickle
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task

from rl.envs.metaworld.reward_math import hamacher_product, norm, rebound, tolerance
from rl.envs.metaworld.task_sets import stock_env

OBSERVATION_SIZE, FRAME_SIZE = 39, 18
ACTION_SCALE = 1.0 / 100  # metres
MAX_VALUE = mujoco.mjMAXVAL  # no state of a simulation goes beyond this
# All that the next step depends on: positions, velocities, warm start of the solver, mocap pose, controls.
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def _observation_bounds() -> tuple[Float[np.ndarray, "39"], Float[np.ndarray, "39"]]:
    """What observations that hide the goal are clipped to: (lowest, highest)."""
    hand = SawyerXYZEnv._HAND_SPACE
    objects = np.full(FRAME_SIZE - 4, np.inf)
    low, high = np.concatenate((hand.low, [-1.0], -objects)), np.concatenate((hand.high, [1.0], objects))
    return np.concatenate((low, low, np.zeros(3))), np.concatenate((high, high, np.zeros(3)))


_LOW, _HIGH = _observation_bounds()


class Start(NamedTuple):
    """The beginning of every episode of a task: nothing in it is random once the task is known."""

    state: Float[np.ndarray, "state"]
    body_pos: Float[np.ndarray, "bodies 3"]
    site_pos: Float[np.ndarray, "sites 3"]
    attributes: dict[str, Any]
    observation: Float[np.ndarray, "39"]


class _Views:
    """`MjData` with its look-ups by name remembered; the arrays are MuJoCo's own memory and follow the simulation."""

    def __init__(self, data: mujoco.MjData):
        self._data = data
        for kind in ("body", "geom", "site", "joint"):
            setattr(self, kind, functools.cache(functools.partial(self._fields, getattr(data, kind))))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    @staticmethod
    def _fields(look_up: Callable[[str], Any], name: str) -> Any:
        view = look_up(name)
        fields = [field for field in dir(view) if not field.startswith("_")]
        return collections.namedtuple("Fields", fields)(*(getattr(view, field) for field in fields))


def displacements(actions: Float[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N 3"]:
    """How far actions move the hand's target, in metres, in the actions' type, as in Meta-World."""
    return np.clip(actions[..., :3], -1, 1) * ACTION_SCALE


class Simulation:
    """One MuJoCo model and state, for all the episodes of a Meta-World class.

    Args:
        env_name: such as "push-v3".
    """

    def __init__(self, env_name: str):
        self._env_name = env_name
        self._env_class = ALL_V3_ENVIRONMENTS[env_name]
        self._episode_class = episode_class(self._env_class)
        self._stock = stock_env(env_name)
        self.rand_vec_shape = self._stock._random_reset_space.shape
        self.model, self.data = self._stock.model, self._stock.data
        self.views = _Views(self.data)
        self.hand_target, self.control = self.data.mocap_pos[0], self.data.ctrl
        self._starts: dict[tuple[float, ...], Start] = {}
        self._loaded: Start | None = None

    def begin(self, rand_vec: tuple[float, ...]) -> Any:
        """A new episode of the task with these frozen parameters, a tuple of floats.

        A reset runs 100 environment steps of physics to move the hand into place and always ends in the same state, so
        the first one of a task serves all its episodes.
        """
        if rand_vec not in self._starts:
            self._starts[rand_vec] = self._start(rand_vec)
        return self._episode_class(self, self._starts[rand_vec])

    def _start(self, rand_vec: tuple[float, ...]) -> Start:
        # As the ML benchmarks have it, the observation hides the goal.
        parameters = {"rand_vec": np.array(rand_vec), "partially_observable": True}
        self._stock.set_task(Task(self._env_name, pickle.dumps({"env_cls": self._env_class} | parameters)))
        observation, _ = self._stock.reset()
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        self._loaded = None
        return Start(
            state, self.model.body_pos.copy(), self.model.site_pos.copy(), vars(self._stock).copy(), observation
        )

    @functools.cached_property
    def complete(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The model with all that pictures need, and a state for it."""
        model = mujoco.MjModel.from_xml_path(self._stock.fullpath)
        return model, mujoco.MjData(model)

    def load(self, start: Start) -> None:
        """Move what stands fixed in the scene, and the goal marks, to where the task has them."""
        if self._loaded is not start:
            self.model.body_pos[:] = start.body_pos
            self.model.site_pos[:] = start.site_pos
            self._loaded = start


class Episode:
    """A mixin over a Meta-World class: one episode, without a model and state of its own."""

    # What a Meta-World class has.
    curr_path_length: int
    max_path_length: int
    frame_skip: int
    mocap_low: Any
    mocap_high: Any
    obj_init_pos: Float[np.ndarray, "3"]
    init_tcp: Float[np.ndarray, "3"]
    evaluate_state: Any
    _get_pos_objects: Any
    _get_quat_objects: Any

    # Set anew in every step; in Meta-World a property, computed at each of its several uses.
    tcp_center: Float[np.ndarray, "3"] = np.full(3, np.nan)

    def __init__(self, simulation: Simulation, start: Start):
        vars(self).update(start.attributes)
        self.simulation, self.start = simulation, start
        self.data = simulation.views
        self.observation = start.observation
        self.state = start.state.copy()
        self._hand, self._left_claw, self._right_claw, self._left_pad, self._right_pad = (
            self.get_body_com(name) for name in ("hand", "leftclaw", "rightclaw", "leftpad", "rightpad")
        )
        self._left_end, self._right_end = (self.data.site(f"{side}EndEffector").xpos for side in ("left", "right"))

    def step(
        self, action: Float[np.ndarray, "4"], displacement: Float[np.ndarray, "3"]
    ) -> tuple[Float[np.ndarray, "39"], Any, bool, bool, dict[str, Any]]:
        """As Meta-World's step: (observation, reward, terminated, truncated, info).

        Args:
            action: float32 or float64.
            displacement: of the hand, in metres: `displacements(action)`.
        """
        simulation = self.simulation
        model, data = simulation.model, simulation.data
        simulation.load(self.start)
        mujoco.mj_setState(model, data, self.state, _STATE)
        hand, control = simulation.hand_target, simulation.control
        np.add(hand, displacement, out=hand)
        np.minimum(np.maximum(hand, self.mocap_low, out=hand), self.mocap_high, out=hand)
        control[0] = action[3]
        control[1] = -action[3]
        mujoco.mj_step(model, data, nstep=self.frame_skip)
        # Brings positions and contact forces up to date, and the warm start of the next step's solver.
        mujoco.mj_forward(model, data)
        mujoco.mj_getState(model, data, self.state, _STATE)
        self.curr_path_length += 1
        self.tcp_center = (self._right_end + self._left_end) / 2.0
        self.observation = observation = self._get_obs()
        reward, info = self.evaluate_state(observation, action)
        return observation, reward, False, self.curr_path_length == self.max_path_length, info

    def _get_obs(self) -> Float[np.ndarray, "39"]:
        observation = np.zeros(OBSERVATION_SIZE)
        observation[:3] = self._hand
        claws = self._right_claw - self._left_claw
        # 0.1 m apart is open.
        observation[3] = min(max(math.sqrt(claws.dot(claws)) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        observation[4:7], observation[7:11] = positions[:3], quaternions[:4]
        if len(positions) > 3:
            observation[11:14], observation[14:18] = positions[3:], quaternions[4:]
        observation[FRAME_SIZE : 2 * FRAME_SIZE] = self.observation[:FRAME_SIZE]
        return np.minimum(np.maximum(observation, _LOW, out=observation), _HIGH, out=observation)

    def scene(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Meta-World's complete model, textures and all, in the state of this episode."""
        model, data = self.simulation.complete
        model.body_pos[:], model.site_pos[:] = self.start.body_pos, self.start.site_pos
        mujoco.mj_setState(model, data, self.state, _STATE)
        mujoco.mj_forward(model, data)
        return model, data

    def get_body_com(self, body_name: str) -> Float[np.ndarray, "3"]:
        return self.data.body(body_name).xpos

    def touching_object(self, object_geom_id: Any) -> bool | np.bool_:
        """Whether both finger pads press on the geom."""
        data = self.simulation.data
        if not data.ncon:
            return False
        left, right = self.data.geom("leftpad_geom").id, self.data.geom("rightpad_geom").id
        contacts = data.contact
        forces = {left: 0.0, right: 0.0}
        for i, pair in enumerate(contacts.geom.tolist()):
            if object_geom_id in pair:
                for pad in (left, right):
                    if pad in pair:
                        forces[pad] += data.efc_force[contacts.efc_address[i]]
        return forces[left] > 0 and forces[right] > 0

    def _gripper_caging_reward(
        self,
        action: Float[np.ndarray, "4"],
        obj_pos: Float[np.ndarray, "3"],
        obj_radius: float,
        pad_success_thresh: float,
        object_reach_radius: float,
        xz_thresh: float,
        desired_gripper_effort: float = 1.0,
        high_density: bool = False,
        medium_density: bool = False,
    ) -> float | np.floating:
        """Meta-World's reward for closing the gripper around an object, its vectors taken apart into Python floats."""
        x, y, z = obj_pos.tolist()
        start_x, start_y, start_z = self.obj_init_pos.tolist()
        tcp_x, _, tcp_z = self.tcp_center.tolist()
        start_tcp_x, _, start_tcp_z = self.init_tcp.tolist()
        beside = [
            tolerance(
                abs(pad - y),
                (obj_radius, pad_success_thresh),
                abs(abs(pad - start_y) - pad_success_thresh),
                "long_tail",
            )
            for pad in (self._left_pad.item(1), self._right_pad.item(1))
        ]
        above = tolerance(
            math.sqrt((tcp_x - x) ** 2 + (tcp_z - z) ** 2),
            (0, xz_thresh),
            math.sqrt((start_x - start_tcp_x) ** 2 + (start_z - start_tcp_z) ** 2) - xz_thresh,
            "long_tail",
        )
        caging = hamacher_product(hamacher_product(*beside), above)
        closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
        reward = hamacher_product(caging, closed if caging > 0.97 else 0.0)
        if high_density:
            reward = (reward + caging) / 2
        if medium_density:
            margin = abs(norm(self.obj_init_pos - self.init_tcp) - object_reach_radius)
            reach = tolerance(norm(obj_pos - self.tcp_center), (0, object_reach_radius), margin, "long_tail")
            reward = (reward + reach) / 2
        return reward


@functools.cache
def episode_class(env_class: type) -> type:
    """The `Episode` of a Meta-World class: the class's own functions over the stand-ins of `reward_math`.

    Measured on one core, sampling with a policy of 2 × 200 units in turns with and without the stand-ins: 7,600 and
    4,400 steps/s of push-v3, 8,900 and 4,800 of door-open-v3, 8,300 and 7,500 of bin-picking-v3.
    """
    cls = type(f"Fast{env_class.__name__}", (Episode, env_class), {})
    for name, value in vars(env_class).items():
        function = getattr(value, "__func__", value)
        if not isinstance(function, types.FunctionType) or name.startswith(("__", "reset")):
            continue
        if "func" in function.__code__.co_freevars:  # a decorator's check that a task is set: here it always is
            function = (function.__closure__ or ())[function.__code__.co_freevars.index("func")].cell_contents
        # A class that calls its own static functions by the class's name shall find the derived class there.
        function = rebound(function, **{env_class.__name__: cls})
        setattr(cls, name, staticmethod(function) if isinstance(value, staticmethod) else function)
    return cls
