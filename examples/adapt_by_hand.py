"""Adapt a saved policy to one new task, step by step, without the programs.

python examples/adapt_by_hand.py rl/logs/<env>/<method>/<run>/config.json rl/saves/<env>/<method>/<run>/policy-<n>.pt
"""

import dataclasses
import sys
from pathlib import Path

from rl import envs, streams
from rl.algorithm import inner_loop
from rl.config import load_config
from rl.run.checkpoint import load_policy
from rl.run.config_file import copy_of_env_file
from rl.run.setup import Setup
from rl.sampling.rollout import Actor, rollout, update_on


def main(config_path, policy_path):
    config, _ = load_config(config_path)
    # A CT-graph's file is found beside config.json.
    config = dataclasses.replace(config, env_config_path=copy_of_env_file(Path(config_path).parent, config))
    setup = Setup(config)  # the environment and the policy that the options describe
    policy, plan = setup.policy, setup.test_plan()
    params = load_policy(Path(policy_path), policy)  # θ: name -> tensor

    (task,) = setup.sample_tasks(1, "test", 0, streams.EVALUATE)
    print("task:", task)
    env = envs.make(config.env_name, plan.num_episodes, **setup.spec.env_options)
    env.set_tasks([task] * plan.num_episodes)

    # φ = 0; with MAML there is none, and θ itself is adapted.
    start = inner_loop.unadapted(policy, params, num_tasks=1)
    stream = setup.stream(0, streams.EVALUATE)
    before = rollout(env, [Actor(policy, start, 1)], plan.num_episodes, stream)
    adapted, losses, _ = update_on(policy, start, before, plan, update=1)
    stream = stream._replace(phase=stream.phase + 1)  # other random numbers than before
    after = rollout(env, [Actor(policy, adapted, 1)], plan.num_episodes, stream)

    if adapted.context is not None:
        print("φ after the update:", [round(value, 3) for value in adapted.context[0].tolist()])
    print(f"REINFORCE loss before the update: {losses[0]:.4f}")
    print(f"return before: {before.returns.mean():.3f}, after: {after.returns.mean():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
