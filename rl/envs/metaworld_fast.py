"""Meta-World 3.1.1, stepped with less Python around the physics: the same observations, rewards and infos.

A `Simulation` holds the one MuJoCo model and state of a Meta-World class; an `Episode` is what belongs to one episode:
its integration state and the attributes of the environment. Episodes take turns on their simulation, so a process
needs 15 MB a class, however many episodes it steps side by side.

An episode's class is derived from Meta-World's own: the reward and observation functions are the package's code, run
over quicker stand-ins for the utilities that they call (`metaworld_math`); the package itself stays as it is.
"""

import collections
import functools
import pickle
import types
from typing import NamedTuple

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task

from rl.envs.metaworld_math import norm, rebound

REWARD_FUNCTION_VERSION = "v2"
OBSERVATION_SIZE, FRAME_SIZE = 39, 18
# All that the next step depends on: positions, velocities, warm start of the solver, mocap pose, controls.
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Start(NamedTuple):
    """The beginning of every episode of a task: nothing in it is random once the task is known."""

    state: np.ndarray
    body_pos: np.ndarray
    site_pos: np.ndarray
    attributes: dict
    observation: np.ndarray


class _Views:
    """`MjData` with its look-ups by name remembered; the arrays are MuJoCo's own memory and follow the simulation."""

    def __init__(self, data):
        self._data = data
        for kind in ("body", "geom", "site", "joint"):
            setattr(self, kind, functools.cache(functools.partial(self._fields, getattr(data, kind))))

    def __getattr__(self, name):
        return getattr(self._data, name)

    @staticmethod
    def _fields(look_up, name):
        view = look_up(name)
        fields = [field for field in dir(view) if not field.startswith("_")]
        return collections.namedtuple("Fields", fields)(*(getattr(view, field) for field in fields))


class Simulation:
    """One MuJoCo model and state, for all the episodes of a Meta-World class.

    Args:
        env_name: such as "push-v3".
    """

    def __init__(self, env_name):
        cls = ALL_V3_ENVIRONMENTS[env_name]
        self.env_name, self.env_class = env_name, cls
        self.stock = type(cls.__name__, (_Untextured, cls), {})(reward_function_version=REWARD_FUNCTION_VERSION)
        self.model, self.data = self.stock.model, self.stock.data
        self.episode_class = episode_class(cls)
        self.views = _Views(self.data)
        self._starts = {}
        self._loaded = None

    def begin(self, rand_vec, partially_observable=True):
        """A new episode of the task with these frozen parameters.

        A reset runs 100 environment steps of physics to move the hand into place and always ends in the same state, so
        the first one of a task serves all its episodes.
        """
        key = (tuple(rand_vec), partially_observable)
        if key not in self._starts:
            self._starts[key] = self._start(rand_vec, partially_observable)
        return self.episode_class(self, self._starts[key])

    def _start(self, rand_vec, partially_observable):
        parameters = {"rand_vec": np.array(rand_vec), "partially_observable": partially_observable}
        self.stock.set_task(Task(self.env_name, pickle.dumps({"env_cls": self.env_class} | parameters)))
        observation, _ = self.stock.reset()
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        self._loaded = None
        return Start(
            state, self.model.body_pos.copy(), self.model.site_pos.copy(), vars(self.stock).copy(), observation
        )

    def load(self, start):
        """Move what stands fixed in the scene, and the goal marks, to where the task has them."""
        if self._loaded is not start:
            self.model.body_pos[:] = start.body_pos
            self.model.site_pos[:] = start.site_pos
            self._loaded = start


class _Untextured:
    """A mixin that loads a model without its textures: a third of its memory, which only pictures need."""

    def _initialize_simulation(self):
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for material in spec.materials:
            material.textures = [""] * len(material.textures)
        for texture in list(spec.textures):
            texture.delete()
        model = spec.compile()
        return model, mujoco.MjData(model)


class Episode:
    """A mixin over a Meta-World class: one episode, without a model and state of its own."""

    # Set anew in every step; in Meta-World a property, computed at each of its several uses.
    tcp_center = None

    def __init__(self, simulation, start):
        vars(self).update(start.attributes)
        self.simulation, self.start = simulation, start
        self.data = simulation.views
        self.observation = start.observation
        self.state = start.state.copy()
        space = self.sawyer_observation_space
        self._low, self._high = space.low, space.high
        self._hand, self._left_claw, self._right_claw, self._left_pad, self._right_pad = (
            self.get_body_com(name) for name in ("hand", "leftclaw", "rightclaw", "leftpad", "rightpad")
        )
        self._left_end, self._right_end = (self.data.site(f"{side}EndEffector").xpos for side in ("left", "right"))

    def step(self, action):
        """As Meta-World's: (observation float64 [39], reward, terminated, truncated, info)."""
        simulation, model, data = self.simulation, self.simulation.model, self.simulation.data
        simulation.load(self.start)
        mujoco.mj_setState(model, data, self.state, _STATE)
        self._control(action)
        mujoco.mj_step(model, data, nstep=self.frame_skip)
        # Brings positions and contact forces up to date, and the warm start of the next step's solver.
        mujoco.mj_forward(model, data)
        mujoco.mj_getState(model, data, self.state, _STATE)
        self.curr_path_length += 1
        self.tcp_center = (self._right_end + self._left_end) / 2.0
        self.observation = self._get_obs()
        reward, info = self.evaluate_state(self.observation, action)
        return self.observation, reward, False, self.curr_path_length == self.max_path_length, info

    def _control(self, action):
        data = self.simulation.data
        position = data.mocap_pos
        # A float32 action moves the hand by a float32 distance, as in Meta-World.
        position += np.minimum(np.maximum(action[:3], -1), 1) * self.action_scale
        np.minimum(np.maximum(position, self.mocap_low, out=position), self.mocap_high, out=position)
        data.ctrl[0], data.ctrl[1] = action[3], -action[3]

    def _get_obs(self):
        frame = self._get_curr_obs_combined_no_goal()
        observation = np.zeros(OBSERVATION_SIZE)
        observation[:FRAME_SIZE] = frame
        observation[FRAME_SIZE : 2 * FRAME_SIZE] = self._prev_obs
        if not self._partially_observable:
            observation[2 * FRAME_SIZE :] = self._get_pos_goal()
        self._prev_obs = frame
        return np.minimum(np.maximum(observation, self._low, out=observation), self._high, out=observation)

    def _get_curr_obs_combined_no_goal(self):
        frame = np.zeros(FRAME_SIZE)
        frame[:3] = self._hand
        # 0.1 m apart is open.
        frame[3] = min(max(norm(self._right_claw - self._left_claw) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        for i in range(len(positions) // 3):
            frame[4 + 7 * i : 7 + 7 * i] = positions[3 * i : 3 * i + 3]
            frame[7 + 7 * i : 11 + 7 * i] = quaternions[4 * i : 4 * i + 4]
        return frame

    def get_body_com(self, body_name):
        return self.data.body(body_name).xpos

    def touching_object(self, object_geom_id):
        """Whether both finger pads press on the geom."""
        contacts, forces = self.simulation.data.contact, self.simulation.data.efc_force
        pads = {self.data.geom("leftpad_geom").id: 0.0, self.data.geom("rightpad_geom").id: 0.0}
        for (one, other), address in zip(contacts.geom.tolist(), contacts.efc_address.tolist(), strict=True):
            if object_geom_id in (one, other):
                for pad in pads:
                    if pad in (one, other):
                        pads[pad] += forces[address]
        return all(force > 0 for force in pads.values())

    _gripper_caging_reward = rebound(SawyerXYZEnv._gripper_caging_reward)


@functools.cache
def episode_class(env_class):
    """The `Episode` of a Meta-World class: its functions over the stand-ins, save those that `Episode` brings."""
    cls = type(f"Fast{env_class.__name__}", (Episode, env_class), {})
    for name, value in vars(env_class).items():
        function = getattr(value, "__func__", value)
        if not isinstance(function, types.FunctionType) or name.startswith(("__", "reset")):
            continue
        if "func" in function.__code__.co_freevars:  # a decorator's check that a task is set: here it always is
            function = function.__closure__[function.__code__.co_freevars.index("func")].cell_contents
        # A class that calls its own static functions by the class's name shall find the derived class there.
        function = rebound(function, **{env_class.__name__: cls})
        setattr(cls, name, staticmethod(function) if isinstance(value, staticmethod) else function)
    return cls
