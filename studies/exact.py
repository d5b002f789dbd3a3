"""Policies of the CT-graph measured exactly: the graph is deterministic, so a policy gives the probability of every
walk. Episodes are drawn only for what the update sees.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from kept import rounded
from torch import Tensor

from rl import streams
from rl.algorithm.inner_loop import Adapted, unadapted
from rl.envs.ctgraph.environment import DECISION, WAIT, CTGraph
from rl.evaluation.runs import Run
from rl.run.checkpoint import load_policy
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import Actor, StreamName, rollout, update_on

MEASURES = {
    "own": "success after one update on its own episodes",
    "coverage": "chance that 25 episodes find the leaf",
    "handed": "success after an update on one visit to the leaf",
}
EARLY = 300  # iterations before which every kept policy is measured; after them, the last one is
FIRST = 100  # iterations, in which coverage is won or lost
DRAWS = 40  # of the episodes that the last policy's update sees, for each leaf; of earlier ones a quarter


class Graph:
    """The graph, and a policy's exact chances in it.

    Args:
        setup: of a run.
    """

    def __init__(self, setup: Setup):
        self.setup, self.policy = setup, setup.policy
        assert isinstance(setup.env, CTGraph)
        self.count = setup.env.num_leaves
        # Every walk to a leaf: what it sees and does at each step that can go wrong.
        self.walks = self._walks()
        acting = np.isin(self.walks.infos["state_type"], (WAIT, DECISION))
        # infos tell the state after a step, so the step that acts in it is the next one.
        self.acting = np.concatenate([np.zeros_like(acting[:, :1]), acting[:, :-1]], axis=1)[..., 0]

    def environment(self, num_envs: int) -> CTGraph:
        """The environment with so many episodes."""
        return CTGraph(num_envs, **self.setup.spec.env_options)

    def _walks(self) -> Episodes:
        """The walk to each leaf that is its own goal, one episode a task."""
        env = self.environment(self.count)
        env.set_tasks([{"leaf": leaf} for leaf in range(self.count)])
        current, _ = env.reset(seed=list(range(self.count)))
        steps: dict[str, list] = {name: [] for name in ("observations", "actions", "rewards", "mask", "state_type")}
        running = np.ones(self.count, bool)
        for _ in range(env.horizon):
            safe, level = env.safe_actions(), np.searchsorted(env.level_ends, env.nodes, side="right")
            deciding = env.state_types == DECISION
            branch = env.paths[np.arange(self.count), np.minimum(level, env.paths.shape[1] - 1)] + 1
            actions = np.where(deciding, branch, safe.argmax(1))
            for name, value in (("observations", current), ("actions", actions), ("mask", running.astype(np.float32))):
                steps[name].append(value.copy())
            current, rewards, terminated, truncated, infos = env.step(actions)
            steps["rewards"].append(rewards)
            steps["state_type"].append(infos["state_type"])
            running = running & ~(terminated | truncated)
        arrays = {name: np.stack(values, axis=1)[:, :, None] for name, values in steps.items()}
        kind = arrays.pop("state_type")
        found = Episodes(**arrays, infos={"state_type": kind})
        assert (found.rewards.sum(1) > 0).all()
        return found

    def chances(self, params: dict[str, Tensor], context: Float[Tensor, "K C"]) -> Float[np.ndarray, "K leaves"]:
        """The probability that an episode ends in each leaf, with each of K contexts."""
        observations = torch.from_numpy(self.walks.observations[:, :, 0]).flatten(0, 1)
        actions = torch.from_numpy(self.walks.actions[:, :, 0]).flatten()
        with torch.no_grad():
            distribution = self.policy(params, context, observations.expand(len(context), -1, -1))
            log_prob = distribution.log_prob(actions.expand(len(context), -1)).view(len(context), self.count, -1)
        return np.exp((log_prob.double().numpy() * self.acting).sum(-1))

    def measure(self, params: dict[str, Tensor], seed: int, draws: int) -> dict[str, Float[np.ndarray, " leaves"]]:
        """The `MEASURES` of each leaf, over `draws` sets of episodes where those are drawn."""
        plan = self.setup.train_plan()
        leaves = np.repeat(np.arange(self.count), draws)
        start = unadapted(self.policy, params, len(leaves))
        assert start.context is not None
        env = self.environment(len(leaves) * plan.num_episodes)
        env.set_tasks([{"leaf": int(leaf)} for leaf in leaves for _ in range(plan.num_episodes)])
        stream = StreamName(seed, 0, streams.EVALUATE, 0)
        episodes = rollout(env, [Actor(self.policy, start, len(leaves))], plan.num_episodes, stream)
        own = self._after(start, episodes, leaves)
        for name in ("observations", "actions", "rewards", "mask"):
            getattr(episodes, name)[:, :, 0] = getattr(self.walks, name)[leaves, :, 0]
        handed = self._after(start, episodes, leaves)
        found = self.chances(params, start.context[:1])[0]
        return {"own": own, "coverage": 1 - (1 - found) ** plan.num_episodes, "handed": handed}

    def _after(self, start: Adapted, episodes: Episodes, leaves: np.ndarray) -> Float[np.ndarray, " leaves"]:
        """The chance of each leaf after the update on its tasks' episodes."""
        adapted, _, _ = update_on(self.policy, start, episodes, self.setup.train_plan(), 1)
        assert adapted.context is not None
        own = self.chances(adapted.params, adapted.context)[np.arange(len(leaves)), leaves]
        return own.reshape(self.count, -1).mean(1)


def curves(run: Run, last: Path) -> dict[str, Any]:
    """The measures of a run's kept policies, `last` and those beside it.

    Returns:
        "checkpoints", their iterations; each of `MEASURES`, the mean over leaves at each of them; "leaves", the same
        leaf by leaf; "steps", of `outer_steps`.
    """
    graph = Graph(Setup(dataclasses.replace(run.config, env_config_path=str(run.environment_file))))
    iterations = sorted(int(path.stem.partition("-")[2]) for path in last.parent.glob("policy-*.pt"))
    kept = [number for number in iterations if number < EARLY or number == iterations[-1]]
    found = [
        graph.measure(
            load_policy(last.with_name(f"policy-{number}.pt"), graph.policy),
            run.config.seed,
            DRAWS if number == kept[-1] else DRAWS // 4,
        )
        for number in kept
    ]
    means = {name: rounded([measured[name].mean() for measured in found]) for name in MEASURES}
    leaves = {name: [np.round(measured[name], 3).tolist() for measured in found] for name in MEASURES}
    return {"checkpoints": kept, **means, "leaves": leaves, "steps": outer_steps(run.progress)}


def outer_steps(progress: Mapping[str, Any]) -> dict[str, float]:
    """Means over the first `FIRST` iterations: the KL of an outer step, the part that the line search takes of the step
    whose KL would be max-kl were the policy smooth, and that part's square; all 0 where it took none.
    """
    kl, part = (np.asarray(progress[f"trpo/{name}"][:FIRST]) for name in ("kl", "step_size"))
    return {name: rounded(values.mean()) for name, values in (("kl", kl), ("part", part), ("square", part**2))}


def lost(leaf: Sequence[float], checkpoints: Sequence[int]) -> int | None:
    """The last iteration at which a leaf's curve is a half or more; None where that is the end, or never."""
    high = np.asarray(leaf) >= 0.5
    if high[-1] or not high.any():
        return None
    return checkpoints[int(np.flatnonzero(high)[-1])]
