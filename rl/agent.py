"""A trained policy for notebooks and programs: adapt it to a task, act with it, look at its context and gates.

import rl
agent = rl.load("logs/2DNavigation-v0/nm_cavia/<run>")
adapted = agent.adapt({"goal": [0.3, -0.4]}, updates=2)
print(adapted.returns.mean(axis=1))  # after 0, 1 and 2 updates
"""

import dataclasses
import operator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rl import envs, streams
from rl.algorithm.inner_loop import Adapted
from rl.config import SPLITS, Config, check_option, load_config
from rl.errors import UserError
from rl.evaluation.evaluate import replay
from rl.evaluation.recordings import recorded
from rl.policies import MLPPolicy
from rl.run.checkpoint import load_policy
from rl.run.config_file import copy_of_env_file
from rl.run.folders import POLICIES
from rl.run.setup import Setup
from rl.sampling.rollout import Rollouts

Task = dict[str, Any]


def load(folder: str | Path, policy: str | Path | None = None) -> "Agent":
    """The agent of a run.

    Args:
        folder: a training run's log folder, or any other with its config.json: an evaluation's, or one of results/.
        policy: a state dict; default: `policy.pt` in the folder, else the run's last policy.

    Raises:
        UserError: something is missing, or is not what it should be.
    """
    folder = Path(folder)
    config, description = load_config(folder / "config.json")
    config = dataclasses.replace(config, num_workers=0, device="cpu", env_config_path=copy_of_env_file(folder, config))
    setup = Setup(config, description["run_seed"])
    path = Path(policy) if policy is not None else _last_policy(folder, config.savedir)
    return Agent(setup, load_policy(path, setup.policy))


def _last_policy(folder: Path, savedir: str) -> Path:
    beside = folder / "policy.pt"
    if beside.is_file():
        return beside
    names = folder.resolve().parts[-3:]
    # Where the logs were moved or copied together with the policies, these lie beside them.
    for place in (Path(*folder.resolve().parts[:-4], "saves", *names), Path(savedir, *names)):
        found = {
            int(number): path for path in place.glob(POLICIES) if (number := path.stem.partition("-")[2]).isdecimal()
        }
        if found:
            return found[max(found)]
    raise UserError(f"{folder}: expected policy.pt in it, or the run's policies in {savedir}; name one with policy=")


class Agent:
    """A meta-trained policy, as it is before it adapts.

    Args:
        params: θ.
    """

    def __init__(self, setup: Setup, params: dict[str, Tensor]):
        self.setup, self.params = setup, params

    @property
    def policy(self) -> MLPPolicy:
        """The network."""
        return self.setup.policy

    def sample_tasks(self, count: int = 1, split: str = "test", seed: int = 0) -> list[Task]:
        """Draw tasks of the environment; a task can be written down as well, such as {"goal": [0.3, -0.4]}.

        Raises:
            UserError: no such split; the environment's code returned something else than tasks.
        """
        if split not in SPLITS:
            raise UserError(f"split: expected {' or '.join(SPLITS)}, got {split!r}")
        setup = self.setup
        return envs.sample_tasks(setup.config.env_name, setup.env, count, split, np.random.default_rng(seed))

    def env(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        """The gymnasium environment with a task; `render_mode` "rgb_array" lets it be seen."""
        spec = self.setup.spec
        env = envs.make_scalar(spec.env_name, render_mode, **spec.env_options)
        env.set_tasks([task])
        return env

    def adapt(self, task: Task, updates: int = 1, episodes: int | None = None, seed: int = 0) -> "Adaptation":
        """Adapt to a task as an evaluation does: sample episodes, update, sample again.

        Args:
            episodes: before each update and after the last; default: the run's --test-batch-size.
            seed: of all that is random.

        Raises:
            UserError: an impossible number, or the environment has no such task.
        """
        setup = self.setup
        episodes = setup.config.test_batch_size if episodes is None else episodes
        options = {"num_test_steps": ("updates", updates or 1), "test_batch_size": ("episodes", episodes),
                   "seed": ("seed", seed)}  # fmt: skip
        for option, (name, value) in options.items():  # 0 updates are none, which test.py has no use for
            if not hasattr(value, "__index__"):
                raise UserError(f"{name}: expected a whole number, got {value!r}")
            check_option(Config.__dataclass_fields__[option], operator.index(value), name)
        setup.check_task(task)
        plan = setup.test_plan(updates)._replace(num_episodes=episodes)
        stream = setup.stream(0, streams.EVALUATE)._replace(seed=seed)
        with setup.sampler() as shares:
            rollouts = shares.sampler.sample(self.params, [task], plan, stream)
        stages = [adapted for _, adapted in replay(self.policy, self.params, rollouts, plan)]
        return Adaptation(self, task, rollouts, stages)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What an agent made of a task.

    Attributes:
        rollouts: all episodes, after 0, 1, 2, … updates.
        stages: θ and φ after 0, 1, 2, … updates.
    """

    agent: Agent
    task: Task
    rollouts: Rollouts
    stages: list[Adapted]

    @property
    def returns(self) -> Float[np.ndarray, "U E"]:
        """The returns of the episodes after 0, 1, 2, … updates."""
        return np.stack([episodes.returns[0] for episodes in self.rollouts.episodes])

    @property
    def contexts(self) -> Float[np.ndarray, "U C"]:
        """φ after 0, 1, 2, … updates; of MAML, which has none, empty."""
        found = [stage.context for stage in self.stages if stage.context is not None]
        return np.array([context[0].numpy() for context in found])

    def act(
        self, observation: Float[np.ndarray, " O"], rng: np.random.Generator | None = None, updates: int = -1
    ) -> np.ndarray | int:
        """An action for a step of a gymnasium environment.

        Args:
            rng: draws the action; without one, it is the mean, or the likeliest.
            updates: which stage acts; default: the last.
        """
        policy, (params, context) = self.agent.policy, self.stages[updates]
        with torch.no_grad():
            seen = torch.as_tensor(np.asarray(observation, np.float32)).reshape(1, 1, -1)
            distribution = policy(params, context, seen)
        discrete, size = policy.head.discrete, (1, 1, policy.head.size)
        action = distribution.mode
        if rng is not None:
            noise = rng.random(size[:2], np.float32) if discrete else rng.standard_normal(size, np.float32)
            action = distribution.sample(torch.from_numpy(noise))
        return int(action) if discrete else action[0, 0].numpy()

    def activations(
        self, observation: Float[np.ndarray, " O"], updates: int = -1
    ) -> dict[str, Float[np.ndarray, " H"]]:
        """What every layer does at an observation: `layer1.output`, and of gated layers `layer1.gates` and more."""
        seen = torch.as_tensor(np.asarray(observation, np.float32)).reshape(1, 1, -1)
        return {name: values[0, 0] for name, values in recorded(self.agent.policy, self.stages[updates], seen).items()}

    def gates(self, observation: Float[np.ndarray, " O"], updates: int = -1) -> dict[str, Float[np.ndarray, " H"]]:
        """The gates at an observation: layer -> [H] in [−1, 1]; nothing of a plain policy."""
        found = self.activations(observation, updates)
        return {name.removesuffix(".gates"): values for name, values in found.items() if name.endswith(".gates")}
