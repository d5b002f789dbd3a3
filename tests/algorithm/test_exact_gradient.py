"""Estimators of the meta-gradient against the exact one, of problems so small that every outcome can be enumerated."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from rl.algorithm import returns
from rl.algorithm.batch import Batch
from rl.algorithm.inner_loop import Update, adapt, unadapted
from rl.algorithm.inner_objective import ratio, score
from rl.algorithm.jacobian import flatten, unflatten
from rl.algorithm.options import Options
from rl.algorithm.terms import Adapted, Budget, Unadapted
from rl.envs.contract import keys, roll
from tests.support.chunks import DOUBLE
from tests.support.ctgraph_documents import document, make
from tests.support.helpers import random_params, small_policy


class Enumerated:
    """All that can happen in a few tasks: two episodes before the update, one after it.

    Axes: G tasks, W different episodes of a task, T steps, K outcomes: a task, and which episodes came before the
    update.

    Args:
        observations, actions, rewards, mask: [G, W, T, ...] of all episodes.
        baseline: of every observation, drawn at random; or 0.
        gamma, gae_lambda, normalized: of the advantages.
    """

    EPISODES = 2

    def __init__(
        self, observations, actions, rewards, mask, baseline=False, gamma=1.0, gae_lambda=1.0, normalized=False
    ):
        self.mask, self.actions = torch.as_tensor(mask, dtype=DOUBLE), torch.as_tensor(actions)
        rewards, seen = torch.as_tensor(rewards) * self.mask, torch.as_tensor(observations, dtype=DOUBLE)
        self.returns = rewards.sum(-1)
        self.table, rows = seen.flatten(0, 2).unique(dim=0, return_inverse=True)
        self.rows = rows.view(self.mask.shape)
        values = torch.rand(len(self.table), generator=torch.Generator().manual_seed(0), dtype=DOUBLE)[self.rows]
        values = baseline * values * self.mask
        each = self.mask[..., None]  # every episode a batch of its own
        advantages = returns.generalized_advantages(rewards[..., None], values[..., None], gamma, gae_lambda)
        self.advantages = (returns.normalize(advantages, each) if normalized else advantages)[..., 0]
        self.mean_of_steps = returns.step_weights(each)[..., 0]  # as trained
        self.num_tasks, count, _ = self.mask.shape
        outcomes = itertools.product(range(self.num_tasks), itertools.product(range(count), repeat=self.EPISODES))
        task, before = zip(*outcomes, strict=True)
        self.task, self.before, self.every = torch.tensor(task), torch.tensor(before), torch.arange(count)
        sizes = {"observation_size": self.table.shape[-1], "action_size": int(self.actions.max()) + 1}
        self.policy = small_policy("categorical", "soft", "cavia", **sizes)
        self.theta = flatten(random_params(self.policy, seed=1))
        self.update = Update(5.0)

    def batch(self, task, episodes, weights):
        """The `episodes` [K, E] of the tasks [K]; the weights are [K, E, T]."""
        arrays = (self.rows, self.actions, self.advantages)
        rows, actions, advantages = (array[task[:, None], episodes].flatten(1) for array in arrays)
        return Batch(self.table.expand(len(task), -1, -1), rows, actions, advantages, weights.flatten(1))

    def batch_before(self, weights):
        """The episodes before the update of every outcome; the weights [G, W, T] are those of single episodes."""
        return self.batch(self.task, self.before, weights[self.task[:, None], self.before] / self.EPISODES)

    def log_probs(self, adapted, task):
        """log π of each step [K, W, T] of all episodes of the tasks [K]."""
        steps = self.batch(task, self.every.expand(len(task), -1), self.mask[task])
        return steps.log_prob(self.policy(*adapted, steps.observations)).view(self.mask[task].shape) * self.mask[task]

    def probabilities(self, theta):
        """Of each outcome [K], and of the episodes [K, W] after its update."""
        params = unflatten(self.policy, theta)
        start = unadapted(self.policy, params, self.num_tasks)
        first = self.log_probs(start, torch.arange(self.num_tasks)).sum(-1)[self.task[:, None], self.before]
        (*_, adapted), _ = adapt(
            self.policy, params, [self.batch_before(self.mean_of_steps)], self.update, create_graph=True
        )
        return first.sum(-1).exp() / self.num_tasks, self.log_probs(adapted, self.task).sum(-1).exp()

    def values(self, later):
        """The expected return [K] after the update."""
        return (later * self.returns[self.task]).sum(-1)

    def estimate(self, weights, credit=0.0, inner="score"):
        """The mean, over all that can be sampled, of the gradient that the outer step follows (of the return).

        Args:
            weights: of the steps of single episodes, [G, W, T].
            credit: `--exploration-credit`; the return after the update is taken as it is.
            inner: `--inner-objective`.
        """
        options = Options(fast_lr=self.update.learning_rate, exploration_credit=credit, inner_objective=inner)
        prior, later = (probabilities.detach() for probabilities in self.probabilities(self.theta))
        every = self.every.expand(len(prior), -1)
        after = self.batch(self.task, every, (prior[:, None] * later)[..., None] * weights[self.task])
        before = [self.batch_before(self.mean_of_steps)]
        gradient = Adapted(self.policy, self.theta, before, after, options, 0, Budget()).gradient
        if credit:
            kept = (prior * self.values(later), options, 0, Budget())
            gradient = gradient + Unadapted(self.policy, self.theta, self.batch_before(weights), *kept).gradient
        return -gradient

    def exact(self):
        """(the gradient of the expected return after the update, the part of it through the pre-update episodes)"""
        theta = self.theta.clone().requires_grad_()
        prior, later = self.probabilities(theta)
        values = self.values(later)
        terms = (prior @ values, prior @ values.detach())
        return [torch.autograd.grad(term, theta, retain_graph=True)[0] for term in terms]


def bandit(**conventions):
    """Two arms, of which a task pays one; the policy sees nothing."""
    nothing, arms = torch.linspace(-1, 1, 3).expand(2, 2, 1, 3), torch.arange(2).expand(2, 2)[..., None]
    return Enumerated(nothing, arms, torch.eye(2)[..., None], torch.ones(2, 2, 1), **conventions)


def ct_graph(**conventions):
    """The environment at depth 1: all walks, of 2 to 5 steps, for a crash ends them early."""
    few = {"delay_states": [2, 4], "decision_points": [5, 5], "graph_ends": [6, 7]}
    changes = {"graph_shape": {"depth": 1}, "reward": {"crash_reward_value": -0.3}, "observations": few}
    actions = np.array([*itertools.product(range(3), repeat=5)]).T
    env = make(document(**changes, image_dataset={"nr_of_images": 8}), actions.shape[1])
    tasks = []
    for leaf in (0, 1):
        record = roll(env, keys(env.num_envs), [{"leaf": leaf}] * env.num_envs, actions)
        mask = np.cumsum(record["terminated"], axis=0) - record["terminated"] == 0
        _, different = np.unique(np.where(mask, actions, -1), axis=1, return_index=True)
        arrays = (record["observations"][:-1], actions, record["rewards"], mask)
        tasks.append([np.moveaxis(array[:, different], 0, 1) for array in arrays])
    return Enumerated(*map(np.stack, zip(*tasks, strict=True)), **conventions)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("make_problem", [bandit, ct_graph])
def test_exploration_credit_is_what_the_published_gradient_lacks(make_problem, baseline):
    """With sums over steps: E-MAML's term sums over the pre-update episodes, whose mean the objective here takes."""
    problem = make_problem(baseline=baseline)
    exact, missing = problem.exact()
    published = problem.estimate(problem.mask)
    torch.testing.assert_close(published, exact - missing, rtol=1e-8, atol=1e-10)
    assert float(missing.norm() / exact.norm()) > 0.01
    with_credit = problem.estimate(problem.mask, credit=float(problem.EPISODES))
    torch.testing.assert_close(with_credit, exact, rtol=1e-8, atol=1e-10)
    h, direction = 1e-6, torch.linspace(-1, 1, len(exact), dtype=DOUBLE)
    with torch.no_grad():
        pairs = [problem.probabilities(problem.theta + step * direction) for step in (h, -h)]
    above, below = (float(prior @ problem.values(later)) for prior, later in pairs)
    assert float(exact @ direction) == pytest.approx((above - below) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("make_problem", [bandit, ct_graph])
def test_with_the_ratio_as_inner_loss_the_credit_counts_twice(make_problem):
    """The ratio's second derivative credits the sampling already: with the credit it is further off than without."""
    problem = make_problem()
    exact = problem.exact()[0]
    alone, both = (problem.estimate(problem.mask, credit, "ratio") for credit in (0.0, float(problem.EPISODES)))
    assert float((both - exact).norm()) > 2 * float((alone - exact).norm()) > 0.005 * float(exact.norm())


@pytest.mark.parametrize("convention", ["gamma", "gae_lambda", "normalized", "mean_of_steps"])
def test_conventions_that_bias_it_where_episodes_have_several_steps(convention):
    """Whatever the estimate is multiplied by."""
    changed = {"gamma": 0.9, "gae_lambda": 0.9, "normalized": True}
    problem = ct_graph(baseline=True, **{name: value for name, value in changed.items() if name == convention})
    weights = problem.mean_of_steps if convention == "mean_of_steps" else problem.mask
    exact, estimate = problem.exact()[0], problem.estimate(weights, credit=float(problem.EPISODES))
    bias = exact - (exact @ estimate) / (estimate @ estimate) * estimate
    assert float(bias.norm() / exact.norm()) > 0.01


@pytest.mark.parametrize("make_problem", [bandit, ct_graph])
def test_the_second_derivative_of_ratio_is_on_average_the_return_s_but_for_pairs_of_steps(make_problem):
    """ProMP, section 5: ∇² E R = H₁ + H₂ + H₁₂ + H₁₂ᵀ, of which ratio gives H₁ + H₂ and the score H₂. H₁₂ joins two
    steps: a bandit has none.
    """
    problem, task, origin = make_problem(), torch.tensor([0]), torch.zeros(2, dtype=DOUBLE)
    directions = torch.stack([flatten(random_params(problem.policy, seed=seed)) for seed in (5, 6)])

    def start(x):
        return unadapted(problem.policy, unflatten(problem.policy, problem.theta + x @ directions), 1)

    def log_probs(x):
        return problem.log_probs(start(x), task)[0]

    prior, returns, advantages = log_probs(origin).sum(-1).exp(), problem.returns[0], problem.advantages[0]
    of_return = hessian(lambda x: log_probs(x).sum(-1).exp() @ returns, origin)
    slopes = jacobian(log_probs, origin)
    earlier = slopes.cumsum(1) - slopes  # ∇ log π of all earlier steps
    h1, h12 = (torch.einsum("w,wti,wtj,wt->ij", prior, first, slopes, advantages) for first in (slopes, earlier))
    batch = problem.batch(task, problem.every[None], (prior[:, None] * problem.mask[0])[None])
    found = {
        objective: -hessian(lambda x, of=objective: of(problem.policy(*start(x), batch.observations), batch)[0], origin)
        for objective in (ratio, score)
    }
    torch.testing.assert_close(found[ratio], of_return - h12 - h12.T, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(found[score], found[ratio] - h1, rtol=1e-8, atol=1e-11)
    assert float(h1.norm() / of_return.norm()) > 0.01 and bool(h12.any()) == (make_problem is ct_graph)
