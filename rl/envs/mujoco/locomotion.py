"""What Half-Cheetah and Ant share: MuJoCo robots with a task each, all stepped together by `mujoco.rollout`.

The robots are gymnasium's model files. One environment step holds the control for `FRAME_SKIP` physics steps.

A step is a function of (qpos, qvel, action) alone: `rollout` does not return the accelerations with which the
constraint solver would start its next call, so the solver begins every environment step, not every physics step,
without a warm start. That costs no measurable time and leaves no hidden state.

MuJoCo resets a simulation that it finds unstable. Such an episode terminates with the state that it had before the
step (its velocity in that step counts as zero) and is marked in `infos["unstable"]` of this step alone.
"""

from abc import abstractmethod
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, Int
from mujoco.rollout import Rollout

from rl.envs.base import Step, Task, TaskVectorEnv
from rl.envs.labels import signed
from rl.errors import UserError

HORIZON = 200  # environment steps
FRAME_SKIP = 5  # physics steps in an environment step
POSITION_NOISE = 0.1  # half width of the uniform noise on the initial qpos; m, or rad
VELOCITY_NOISE = 0.1  # standard deviation of the normal noise on the initial qvel; m/s, or rad/s
MODELS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class LocomotionEnv(TaskVectorEnv):
    """N robots of one kind; the reward is `task_reward` + `robot_reward`.

    A robot gives `model_file`, `observe`, `robot_reward` and, where they are not trivial, `refresh` and `fallen`; a
    task gives `task_key`, `draw_goals` and `task_reward`.

    Axes: N = num_envs, R = the episodes concerned (an index array `which`), A = number of actuators; G = (), or (2,)
    for a goal in the plane.

    Attributes:
        model: shared by all episodes.
        qpos: generalised positions, m and rad.
        qvel: generalised velocities, m/s and rad/s.
        goals: what the tasks ask for.
    """

    pictures = "rl.envs.mujoco.pictures"
    copyable = False
    model: mujoco.MjModel
    qpos: Float[np.ndarray, "N nq"]
    qvel: Float[np.ndarray, "N nv"]
    goals: Float[np.ndarray, "N *G"]
    env_id: str  # the published name
    model_file: str
    task_key: str  # the only key of a task's dict
    goal_shape: tuple[int, ...] = ()
    goals_known: tuple[int, ...] = ()  # where they are few

    def __init__(self, num_envs: int, observation_size: int):
        self.model = mujoco.MjModel.from_xml_path(str(MODELS / self.model_file))
        bound = mujoco.mjMAXVAL  # a state with an entry beyond this is unstable
        super().__init__(
            num_envs,
            single_observation_space=Box(-bound, bound, (observation_size,), np.float32),
            single_action_space=Box(-1.0, 1.0, (self.model.nu,), np.float32),
            horizon=HORIZON,
        )
        self.step_duration = FRAME_SKIP * self.model.opt.timestep  # s
        low, high = self.model.actuator_ctrlrange.T
        self._control_centre, self._control_scale = (high + low) / 2, (high - low) / 2

        # A row is MuJoCo's full physics state, [time, qpos, qvel]. Time stays 0 here, so that the time at which a
        # simulation arrives tells whether it went through.
        nq = self.model.nq
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._states = np.zeros((num_envs, size))
        self.qpos, self.qvel = self._states[:, 1 : 1 + nq], self._states[:, 1 + nq :]
        self._data = mujoco.MjData(self.model)  # scratch space: no episode lives in it
        self._rollout = Rollout(nthread=0)  # no pool: runs on the calling thread
        self._controls = np.empty((num_envs, FRAME_SKIP, self.model.nu))
        self._trajectories = np.empty((num_envs, FRAME_SKIP, size))

    @abstractmethod
    def draw_goals(self, num_tasks: int, rng: np.random.Generator) -> Float[np.ndarray, "K *G"] | Int[np.ndarray, "K"]:
        """The goals of K tasks."""

    @abstractmethod
    def task_reward(
        self, goals: Float[np.ndarray, "R *G"], velocities: Float[np.ndarray, "R"], positions: Float[np.ndarray, "R 2"]
    ) -> Float[np.ndarray, "R"]:
        """What the task pays for a step.

        Args:
            goals: of the tasks.
            velocities: forward velocities Δx/Δt over the step, m/s.
            positions: the first two of qpos after the step, m: x and y of Ant, x and z of Half-Cheetah.
        """

    @abstractmethod
    def robot_reward(self, actions: Float[np.ndarray, "R A"], which: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
        """What the robot pays, whatever the task, for the clipped `actions` of the episodes `which`."""

    def refresh(self, which: Int[np.ndarray, "R"], controls: Float[np.ndarray, "R A"]) -> None:
        """Update what the robot derives from the states of the episodes `which` under `controls`."""

    def fallen(self) -> Bool[np.ndarray, "N"]:
        """Which robots are in a state that ends an episode."""
        return np.zeros(self.num_envs, bool)

    def sample_tasks(self, num_tasks: int, split: str, rng: np.random.Generator) -> list[Task]:
        """As `TaskVectorEnv.sample_tasks`; both splits have the same distribution."""
        return [{self.task_key: goal} for goal in self.draw_goals(num_tasks, rng).tolist()]

    def assign(self, tasks: list[Task]) -> None:
        """Take over the goals.

        Raises:
            ValueError: a task lacks its key, or the goal is not finite, of another shape or none of those there are.
        """
        for i, task in enumerate(tasks):
            goal = np.asarray(task.get(self.task_key), np.float64)
            possible = goal.shape == self.goal_shape and np.isfinite(goal).all()
            if not possible or (self.goals_known and goal not in self.goals_known):
                expected = f"{self.goal_shape[0]} finite numbers" if self.goal_shape else "a finite number"
                if self.goals_known:
                    expected = " or ".join(map(str, self.goals_known))
                raise ValueError(f"{self.env_id}, episode {i}: task {task}: expected {expected} as '{self.task_key}'")
        self.goals = np.array([task[self.task_key] for task in tasks], np.float64)

    def begin(self, which: Int[np.ndarray, "R"]) -> None:
        """Draw initial states around rest in the model's reference pose."""
        nq, nv = self.model.nq, self.model.nv
        for i in which:
            generator = self.generators[i]
            self.qpos[i] = self.model.qpos0 + generator.uniform(-POSITION_NOISE, POSITION_NOISE, nq)
            self.qvel[i] = VELOCITY_NOISE * generator.standard_normal(nv)
        self.refresh(which, np.zeros((len(which), self.model.nu)))

    def advance(self, actions: Float[np.ndarray, "N A"]) -> Step:
        """As `TaskVectorEnv.advance`, with actions clipped to [−1, 1]; infos: "unstable", the episodes that MuJoCo
        found unstable in this step.

        Raises:
            UserError: an action of a running episode is not finite.
        """
        rewards, unstable = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        which = np.flatnonzero(self.running)
        if len(which) > 0:
            # A slice costs less than an index array, and mostly all episodes run.
            rows = slice(None) if len(which) == self.num_envs else which
            actions = self._checked(actions[rows], which)
            before = self.qpos[rows, 0].copy()
            unstable[rows] = self._simulate(which, rows, self._control_centre + self._control_scale * actions)
            positions = self.qpos[rows, :2]
            velocities = (positions[:, 0] - before) / self.step_duration
            task_reward = self.task_reward(self.goals[rows], velocities, positions)
            rewards[rows] = task_reward + self.robot_reward(actions, which)
        return rewards, unstable | self.fallen(), {"unstable": unstable}

    def _checked(self, actions: Float[np.ndarray, "R A"], which: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R A"]:
        """The actions, clipped, in float64."""
        finite = np.isfinite(actions).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            episode = int(which[row])
            raise UserError(
                f"{self.env_id}, task {self.tasks[episode]}, episode {episode}: "
                f"expected a finite action, got {actions[row].tolist()}"
            )
        return np.clip(actions, -1.0, 1.0, dtype=np.float64)

    def _simulate(
        self, which: Int[np.ndarray, "R"], rows: slice | Int[np.ndarray, "R"], controls: Float[np.ndarray, "R A"]
    ) -> Bool[np.ndarray, "R"]:
        """Step the episodes `which`, in the `rows` of the states: which of them were unstable."""
        count = len(which)
        held, trajectories = self._controls[:count], self._trajectories[:count]
        held[:] = controls[:, np.newaxis]
        # Without a handler, MuJoCo prints every warning and appends it to a file in the working folder.
        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda message: None)
        try:
            self._rollout.rollout(
                [self.model] * count,
                [self._data],
                self._states[rows],
                held,
                nstep=FRAME_SKIP,
                state=trajectories,
                skip_checks=True,
            )
        finally:
            mujoco.set_mju_user_warning(handler)
        ends = trajectories[:, -1]
        # A reset turns time back, and `rollout` stops after a warning: both arrive early. MuJoCo looks at a state when
        # the next physics step begins, so the last one is left to look at here, by the same criterion.
        arrived = ends[:, 0] > self.step_duration - 0.5 * self.model.opt.timestep
        stable = arrived & (np.abs(ends) <= mujoco.mjMAXVAL).all(axis=1)
        if stable.all():
            self._states[rows, 1:] = ends[:, 1:]
            self.refresh(which, controls)
        else:
            self._states[which[stable], 1:] = ends[stable, 1:]
            self.refresh(which[stable], controls[stable])
        return ~stable


class Direction:
    """Run forwards (+1) or backwards (−1): r = direction · v."""

    task_key = "direction"
    goals_known: tuple[int, ...] = (1, -1)

    @classmethod
    def task_label(cls, task: Task) -> str:
        """forwards or backwards."""
        return {1: "forwards", -1: "backwards"}.get(task.get("direction", 0), "")

    def draw_goals(self, num_tasks: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
        """Either direction with probability ½."""
        return rng.choice((-1, 1), num_tasks)

    def task_reward(
        self, goals: Float[np.ndarray, "R"], velocities: Float[np.ndarray, "R"], positions: Float[np.ndarray, "R 2"]
    ) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.task_reward`."""
        return goals * velocities


class Velocity:
    """Run at the speed v*: r = −|v − v*|."""

    task_key = "velocity"
    max_speed: float  # m/s

    @classmethod
    def task_label(cls, task: Task) -> str:
        """1.50 m/s."""
        speed = task.get("velocity")
        return f"{signed(speed)} m/s" if isinstance(speed, int | float) else ""

    def draw_goals(self, num_tasks: int, rng: np.random.Generator) -> Float[np.ndarray, "K"]:
        """v* ~ U[0, max_speed]."""
        return rng.uniform(0.0, self.max_speed, num_tasks)

    def task_reward(
        self, goals: Float[np.ndarray, "R"], velocities: Float[np.ndarray, "R"], positions: Float[np.ndarray, "R 2"]
    ) -> Float[np.ndarray, "R"]:
        """As `LocomotionEnv.task_reward`."""
        return -np.abs(velocities - goals)
