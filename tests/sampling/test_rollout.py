import itertools

import numpy as np
import pytest
import torch

import rl.envs
from rl import streams
from rl.algorithm.batch import prepare
from rl.algorithm.inner_loop import Adapted, unadapted
from rl.envs.navigation.environment import Navigation
from rl.evaluation.evaluate import replay
from rl.policies import Architecture, make_policy
from rl.sampling.interventions import Intervention
from rl.sampling.rollout import Actor, AdaptationPlan, Rollouts, StreamName, action_noise, meta_rollout, rollout
from tests.support.helpers import ROOT, literal_forward, random_params

# Discrete actions are the same on every processor as long as no noise comes nearer to the border between two of them:
# float32 probabilities are rounded to 1e-7 or so, and contexts to 1e-6.
SAFE = 1e-5
GRAPH = str(ROOT / "rl" / "envs" / "ctgraph" / "ctgraph_d2.json")
ORIGIN = StreamName(seed=3, iteration=2, phase=streams.TRAIN, first_task=0)
SAMPLING = AdaptationPlan(num_episodes=3, learning_rates=(0.5,), gamma=0.95, gae_lambda=1.0)


def environment(name, num_envs):
    env = rl.envs.make(name, num_envs, **rl.envs.options(name, GRAPH if name.startswith("CT") else None))
    if name == "HalfCheetahDir-v1":
        env.horizon = 20
    return env


def policy_for(env, **changes):
    discrete = hasattr(env.single_action_space, "n")
    sizes = {
        "observation_size": env.single_observation_space.shape[0],
        "action_size": int(env.single_action_space.n) if discrete else env.single_action_space.shape[0],
        "discrete": discrete,
        "num_context_params": 2,
        "hidden_sizes": (8, 8),
        "nm_gate": "hard",
        "nm_size": 3,
    }
    return make_policy(Architecture(**sizes | changes))


def setting(name, num_tasks, num_episodes=3, seed=0, **changes):
    env = environment(name, num_tasks * num_episodes)
    policy = policy_for(env, **changes)
    return env, policy, random_params(policy, seed, torch.float32), env.sample_tasks(
        num_tasks, "train", np.random.default_rng(seed)
    )  # fmt: skip


def name_of(origin, task, episode, purpose):
    return streams.key(origin.seed, origin.iteration, origin.phase, origin.first_task + task, episode, purpose)


def nearest(policy, params, rollouts, sampling, origin):
    """How near the noise of any valid step comes to the border between two actions."""
    distances = []
    for update, (episodes, adapted) in enumerate(replay(policy, params, rollouts, sampling)):
        num_tasks, horizon, num_episodes = episodes.mask.shape
        observations = torch.from_numpy(episodes.observations).flatten(1, 2)
        borders = policy(*adapted, observations).log_probs.exp().cumsum(-1)[..., :-1].unflatten(1, (horizon, -1))
        place = origin._replace(phase=origin.phase + update)
        for k, e in itertools.product(range(num_tasks), range(num_episodes)):
            noise = streams.generator(name_of(place, k, e, streams.ACTIONS)).random(horizon, np.float32)
            distance = np.abs(borders[k, :, e].numpy() - noise[:, None]).min(axis=1)
            distances.append(distance[episodes.mask[k, :, e] == 1].min())
    return min(distances)


def drawn(policy, params, outputs, noise):
    """One action from the outputs of the policy and an episode's noise, written out."""
    if not policy.head.discrete:
        return outputs.numpy() + np.exp(params["sigma"].numpy()) * noise.standard_normal(2, np.float32)
    cumulative, number = np.cumsum(torch.softmax(outputs, 0).numpy()), noise.random(dtype=np.float32)
    assert np.abs(cumulative[:-1] - number).min() > SAFE
    # The first action whose cumulative probability exceeds the noise.
    return int(np.argmax(np.append(cumulative[:-1], np.inf) > number))


@pytest.mark.parametrize("name, tolerance", [("2DNavigation-v0", 1e-5), ("CTgraphEnvGoalChange-v0", 0.0)])
def test_episodes_equal_a_plain_loop_over_one_at_a_time(name, tolerance):
    env, policy, params, tasks = setting(name, 4)
    if policy.head.discrete:
        # Small weights make all actions likely, and walks of all lengths.
        params = {key: 0.1 * value for key, value in params.items()}
    else:
        # A goal that is reached after one step of (0.1, 0.1): its episodes end at different times.
        tasks[1] = {"goal": [0.1, 0.1]}
    context = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    env.set_tasks([task for task in tasks for _ in range(3)])
    episodes = rollout(env, [Actor(policy, Adapted(params, context), 4)], 3, ORIGIN)
    assert episodes.actions.dtype == (np.int64 if policy.head.discrete else np.float32)
    single = rl.envs.make_scalar(name, **rl.envs.options(name, GRAPH if policy.head.discrete else None))
    lengths = []
    for k, e in itertools.product(range(4), range(3)):
        noise = streams.generator(name_of(ORIGIN, k, e, streams.ACTIONS))
        single.set_tasks([tasks[k]])
        observation, _ = single.reset(seed=name_of(ORIGIN, k, e, streams.ENVIRONMENT))
        for t in range(env.horizon):
            np.testing.assert_allclose(episodes.observations[k, t, e], observation, rtol=0, atol=tolerance)
            outputs = literal_forward(policy.architecture, params, context[k], torch.from_numpy(observation)[None])[0]
            action = drawn(policy, params, outputs, noise)
            np.testing.assert_allclose(episodes.actions[k, t, e], action, rtol=0, atol=tolerance)
            observation, reward, terminated, truncated, info = single.step(action)
            assert episodes.rewards[k, t, e] == pytest.approx(reward, rel=0, abs=tolerance)
            assert {name: values[k, t, e] for name, values in episodes.infos.items()} == info
            assert episodes.mask[k, t, e] == 1
            if terminated or truncated:
                break
        lengths.append(t + 1)
        for array in (*episodes.arrays(), *episodes.infos.values()):
            assert (array[k, t + 1 :, e] == 0).all()
    assert min(lengths) < max(lengths) == env.horizon
    assert set(episodes.infos) == ({"state_type", "node"} if policy.head.discrete else set())


@pytest.mark.parametrize("name", ["2DNavigation-v0", "CTgraphEnvGoalChange-v0", "Bandit-K5-v0", "TabularMDP-v0"])
def test_an_episode_depends_on_its_own_name_alone(name):
    env, policy, params, tasks = setting(name, 5)
    whole = meta_rollout(env, policy, params, tasks, SAMPLING, ORIGIN)
    # Tasks 1 and 2 again, with fewer neighbours and another batch shape.
    smaller = environment(name, 6)
    place = ORIGIN._replace(first_task=1)
    part = meta_rollout(smaller, policy, params, tasks[1:3], SAMPLING, place)
    assert len(whole.episodes) == len(part.episodes) == 2
    assert not policy.head.discrete or nearest(policy, params, part, SAMPLING, place) > SAFE
    np.testing.assert_allclose(whole.inner_losses[:, 1:3], part.inner_losses, rtol=0, atol=1e-5)
    for left, right in zip(whole.episodes, part.episodes, strict=True):
        for ours, theirs in zip(left.tasks(1, 3).arrays(), right.arrays(), strict=True):
            if name == "2DNavigation-v0":
                # A batch's shape decides the last bits of its products; everything else is continuous.
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
            else:
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["2DNavigation-v0", "CTgraphEnvGoalChange-v0", "HalfCheetahDir-v1", "TabularMDP-v0"])
@pytest.mark.parametrize("intervention", [None, Intervention(context="swapped")])
def test_groups_side_by_side_compute_what_each_computes_alone(name, intervention):
    env, policy, params, _ = setting(name, 5, hidden_sizes=(50, 50), nm_gate="soft", nm_size=5)
    rng = np.random.default_rng(3)
    tasks = env.sample_tasks(5, "train", rng)
    while intervention and (tasks[0] == tasks[1] or tasks[2] == tasks[3]):
        tasks = env.sample_tasks(5, "train", rng)
    sampling = SAMPLING._replace(intervention=intervention)
    if intervention:
        # The group of one task would have nothing to swap with.
        env, tasks = environment(name, 4 * 3), tasks[:4]
    together = meta_rollout(env, policy, params, tasks, sampling, ORIGIN, group_size=2)
    alone = Rollouts.concatenate([
        meta_rollout(
            environment(name, 3 * len(tasks[start : start + 2])), policy, params, tasks[start : start + 2], sampling,
            ORIGIN._replace(first_task=start),
        )
        for start in range(0, len(tasks), 2)
    ])  # fmt: skip
    np.testing.assert_array_equal(together.inner_losses, alone.inner_losses)
    assert together.ridge_retries == alone.ridge_retries and len(together.intervened) == (2 if intervention else 0)
    for ours, theirs in zip(together.episodes + together.intervened, alone.episodes + alone.intervened, strict=True):
        for array, other in zip(
            (*ours.arrays(), *ours.infos.values()), (*theirs.arrays(), *theirs.infos.values()), strict=True
        ):
            np.testing.assert_array_equal(array, other)


def test_action_noise_is_each_episodes_own_stream():
    for discrete in (False, True):
        policy = make_policy(Architecture(2, 3, discrete, 2, (4,)))
        keys = [name_of(ORIGIN, i // 2, i % 2, streams.ACTIONS) for i in range(6)]
        noise = action_noise(policy.head, keys, 10, (3, 2))
        assert noise.dtype == torch.float32 and noise.shape == ((10, 3, 2) if discrete else (10, 3, 2, 3))
        for k in range(3):
            for e in range(2):
                own = streams.generator(keys[2 * k + e])
                expected = own.random(10, np.float32) if discrete else own.standard_normal((10, 3), np.float32)
                np.testing.assert_array_equal(noise[:, k, e], expected)


@pytest.mark.parametrize("change", [{"seed": 4}, {"iteration": 3}, {"phase": 1}, {"first_task": 5}])
def test_another_name_is_another_episode(change):
    env, policy, params, tasks = setting("2DNavigation-v0", 2)
    env.set_tasks([task for task in tasks for _ in range(3)])
    start = unadapted(policy, params, 2)
    actions, again, other = (
        rollout(env, [Actor(policy, start, 2)], 3, origin).actions
        for origin in (ORIGIN, ORIGIN, ORIGIN._replace(**change))
    )
    np.testing.assert_array_equal(actions, again)
    assert not np.isin(other[other != 0], actions).any()


@pytest.mark.parametrize("maml", [False, True])
def test_rollouts_adapt_step_by_step(maml):
    sampling = SAMPLING._replace(learning_rates=(0.5, 0.25, 0.25))
    env, policy, params, tasks = setting("2DNavigation-v0", 2, num_context_params=0 if maml else 2)
    rollouts = meta_rollout(env, policy, params, tasks, sampling, ORIGIN)
    assert len(rollouts.episodes) == 4 and rollouts.inner_losses.shape == (3, 2)
    # After each update: what the weights and contexts recomputed from the episodes before it sample from its streams.
    env.set_tasks([task for task in tasks for _ in range(3)])
    seen = []
    for update, (episodes, adapted) in enumerate(replay(policy, params, rollouts, sampling)):
        again = rollout(env, [Actor(policy, adapted, 2)], 3, ORIGIN._replace(phase=ORIGIN.phase + update))
        for ours, theirs in zip(again.arrays(), episodes.arrays(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        seen.append((adapted.params["mu.bias"] if maml else adapted.context).clone())
    assert len(seen) == 4
    for earlier, later in itertools.pairwise(seen):
        assert not torch.equal(earlier, later)


def test_the_learning_rate_of_each_update_is_its_own():
    env, policy, params, tasks = setting("2DNavigation-v0", 2)
    sampling = SAMPLING._replace(learning_rates=(0.5, 0.0))
    rollouts = meta_rollout(env, policy, params, tasks, sampling, ORIGIN)
    contexts = [adapted.context for _, adapted in replay(policy, params, rollouts, sampling)]
    assert (contexts[0] == 0).all()
    assert (contexts[1] != 0).any() and torch.equal(contexts[1], contexts[2])
    (batch,), _ = prepare(rollouts.episodes[0], [rollouts.episodes[0]], 0.95, 1.0)
    context = torch.zeros(2, 2, requires_grad=True)
    loss = -(batch.weights * batch.advantages * batch.log_prob(policy(params, context, batch.observations))).sum()
    (gradient,) = torch.autograd.grad(loss, context)
    torch.testing.assert_close(contexts[1], -0.5 * gradient)


def test_rollout_leaves_the_arguments_as_they_are():
    env, policy, params, tasks = setting("2DNavigation-v0", 2)
    copies = {name: value.clone() for name, value in params.items()}
    meta_rollout(env, policy, params, tasks, SAMPLING, ORIGIN)
    assert all(torch.equal(params[name], copies[name]) and not params[name].requires_grad for name in params)


class Talkative(Navigation):
    """Tells something once in a while only."""

    def advance(self, actions):
        rewards, terminated, _ = super().advance(actions)
        told = self.tasks[0]["goal"][0] > 0 and self.elapsed[0] == 3
        return rewards, terminated, {"late": np.full(self.num_envs, 7)} if told else {}


@pytest.mark.parametrize("sides", [(1, -1), (-1, 1)])
def test_infos_that_come_seldom_are_zero_elsewhere(sides):
    _, policy, params, _ = setting("2DNavigation-v0", 1)
    parts = [
        meta_rollout(Talkative(3), policy, params, [{"goal": [0.4 * side, 0.4]}], SAMPLING, ORIGIN) for side in sides
    ]
    late = Rollouts.concatenate(parts).episodes[0].infos["late"]
    for k, side in enumerate(sides):
        expected = np.zeros((100, 3))
        expected[3] = 7 * (side > 0)
        np.testing.assert_array_equal(late[k], expected)
