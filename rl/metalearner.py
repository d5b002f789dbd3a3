"""The outer step: TRPO on the post-update episodes, as a function of θ through the inner update (DESIGN of section 1).

Work is walked in chunks of tasks. A chunk's constants (advantages, old distribution) are made once, its graphs are kept
for all conjugate-gradient products, and chunks are spread over a pool of threads with one torch thread each. Results
are added in the order of the chunks, so that every byte is independent of the number of threads.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from rl import adaptation, trpo
from rl.batch import prepare


class Options(NamedTuple):
    """Hyper-parameters of the outer step, named as on the command line (`gae_lambda` is `--tau`)."""

    gamma: float = 0.95
    gae_lambda: float = 1.0
    fast_lr: float = 1.0
    first_order: bool = False
    max_kl: float = 1e-2
    cg_iters: int = 10
    cg_damping: float = 1e-5
    ls_max_steps: int = 15
    ls_backtrack_ratio: float = 0.8


class StepReport(NamedTuple):
    """What an outer step did, for the log (docs/metrics.md defines each)."""

    surrogate_before: float
    surrogate_after: float
    inner_loss: float
    kl: float
    step_size: float
    backtracks: int
    cg_residual: float
    gradient_norm: float
    ridge_retries: int
    accepted: bool


class Chunk:
    """A few tasks' share of the outer step. Losses are sums over its tasks; the learner divides by all of them.

    Args:
        policy: `MLPPolicy`.
        before, after: `Episodes` of the same tasks before and after the inner update.
        options: `Options`.
        dtype, device: of all tensors.
    """

    def __init__(self, policy, before, after, options, dtype, device):
        self.policy = policy
        self.options = options
        (self.before, self.after), self.ridge_retries = prepare(
            before, [before, after], options.gamma, options.gae_lambda, dtype, device
        )
        self.observation_weights = self.after.observation_weights

    def adapt(self, params, create_graph=False):
        """The inner update from φ = 0 on the pre-update episodes: (`Adapted`, inner losses [K])."""
        start = adaptation.unadapted(self.policy, params, self.before.weights.shape[0])
        return adaptation.inner_step(self.policy, start, self.before, self.options.fast_lr, create_graph)

    def linearize(self, vector):
        """Build the graphs at θ_old: the surrogate's gradient now, curvature products later.

        With ratio exp(log π − log π_old), surrogate −Σ w A ratio at θ = θ_old.

        Args:
            vector: θ_old, flat [P].

        Returns:
            (surrogate loss, its gradient [P], inner losses [K])
        """
        self.vector = vector.detach().clone().requires_grad_()
        params = unflatten(self.policy, self.vector)
        adapted, inner_losses = self.adapt(params, create_graph=not self.options.first_order)
        outputs = self.policy(adapted.params, adapted.context, self.after.observations)
        self.old = outputs.detach()
        self.old_log_prob = self.after.log_prob(self.old)
        ratio = torch.exp(self.after.log_prob(outputs) - self.old_log_prob)
        surrogate = -(self.after.weights * self.after.advantages * ratio).sum()
        (gradient,) = torch.autograd.grad(surrogate, self.vector, retain_graph=True)

        # A dummy cotangent w makes the reverse-mode product Jᵀw a function of w whose own reverse mode is J v: both
        # directions then run on kept graphs, and nothing of the primal computation is ever repeated.
        self.outputs = tuple(outputs)
        self.cotangents = tuple(torch.zeros_like(output).requires_grad_() for output in self.outputs)
        (self.pullback,) = torch.autograd.grad(self.outputs, self.vector, self.cotangents, create_graph=True)
        return surrogate.detach(), gradient, inner_losses

    def product(self, vector):
        """Jᵀ M J v [P], the Gauss-Newton (exact at θ_old) Hessian of the summed KL divergence times v."""
        tangents = torch.autograd.grad(self.pullback, self.cotangents, vector, retain_graph=True)
        metric = self.old.metric(tangents, self.observation_weights)
        return torch.autograd.grad(self.outputs, self.vector, metric, retain_graph=True)[0]

    def release(self):
        """Drop the graphs."""
        del self.outputs, self.cotangents, self.pullback

    def evaluate(self, vector):
        """(surrogate loss, KL(π_θ ‖ π_old)) at another θ, summed over the chunk's tasks."""
        adapted, _ = self.adapt(unflatten(self.policy, vector))
        with torch.no_grad():
            distribution = self.policy(adapted.params, adapted.context, self.after.observations)
            ratio = torch.exp(self.after.log_prob(distribution) - self.old_log_prob)
            surrogate = -(self.after.weights * self.after.advantages * ratio).sum()
            return surrogate, (self.observation_weights * distribution.kl(self.old)).sum()


class MetaLearner:
    """Meta-learns θ by TRPO.

    Args:
        policy: `MLPPolicy`.
        options: `Options`.
        rows: how many network rows (tasks × distinct observations) make a chunk; decides the last bits of the results.
        threads: how many chunks are worked on at once; decides nothing but speed. Default: all cores.
        dtype, device: of the computation.
    """

    def __init__(self, policy, options, rows=2048, threads=None, dtype=torch.float32, device="cpu"):
        self.policy = policy
        self.options = options
        self.rows = rows
        self.dtype = dtype
        self.device = torch.device(device)
        self.pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)

    def step(self, params, before, after):
        """One outer step.

        Args:
            params: θ, dict of tensors.
            before, after: `Episodes` of K tasks before and after the inner update.

        Returns:
            (new θ, `StepReport`); θ is unchanged where no step was acceptable.
        """
        options = self.options
        num_tasks = before.mask.shape[0]
        chunks = self.chunks(before, after)
        old = flatten(params).to(self.device, self.dtype)

        linearized = self._map(lambda chunk: chunk.linearize(old), chunks)
        surrogate = float(sum(loss for loss, _, _ in linearized)) / num_tasks
        gradient = sum(part for _, part, _ in linearized) / num_tasks
        inner_loss = float(torch.cat([losses for _, _, losses in linearized]).mean())

        def product(vector):
            return sum(self._map(lambda chunk: chunk.product(vector), chunks)) / num_tasks + options.cg_damping * vector

        def evaluate(fraction):
            parts = self._map(lambda chunk: chunk.evaluate(old - fraction * full_step), chunks)
            return tuple(float(sum(values)) / num_tasks for values in zip(*parts, strict=True))

        solution = trpo.conjugate_gradient(product, gradient, options.cg_iters)
        scale = trpo.step_length(solution.x, product(solution.x), options.max_kl)
        for chunk in chunks:
            chunk.release()
        full_step = scale * solution.x
        if torch.isfinite(full_step).all():
            found = trpo.line_search(
                evaluate, surrogate, options.max_kl, options.ls_max_steps, options.ls_backtrack_ratio
            )
        else:
            found = trpo.LineSearch(0.0, 0, surrogate, 0.0)
        if found.fraction > 0:
            new = unflatten(self.policy, old - found.fraction * full_step)
            params = {name: new[name].to(value.device, value.dtype).clone() for name, value in params.items()}
        report = StepReport(
            surrogate_before=surrogate,
            surrogate_after=found.loss,
            inner_loss=inner_loss,
            kl=found.kl,
            step_size=found.fraction,
            backtracks=found.backtracks,
            cg_residual=solution.residual,
            gradient_norm=float(gradient.norm()),
            ridge_retries=sum(chunk.ridge_retries for chunk in chunks),
            accepted=found.fraction > 0,
        )
        return params, report

    def chunks(self, before, after):
        """Cut the tasks into `Chunk`s of about `rows` rows each."""
        num_tasks, horizon, num_episodes = before.mask.shape
        size = max(1, self.rows // (horizon * num_episodes))

        def make(start):
            stop = min(start + size, num_tasks)
            return Chunk(
                self.policy,
                before.tasks(start, stop),
                after.tasks(start, stop),
                self.options,
                self.dtype,
                self.device,
            )

        return self._map(make, range(0, num_tasks, size))

    def _map(self, function, items):
        return list(self.pool.map(function, items))


def flatten(params):
    """θ as one vector [P], in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(policy, vector):
    """The parameters of a policy as views of a vector [P]."""
    sizes = [torch.Size(shape).numel() for shape in policy.shapes.values()]
    parts = torch.split(vector, sizes)
    return {name: part.reshape(shape) for (name, shape), part in zip(policy.shapes.items(), parts, strict=True)}
