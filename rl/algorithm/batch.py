"""Episodes as tensors for losses, with advantages and weights; each distinct observation once."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Num
from torch import Tensor

from rl.algorithm import baseline, returns
from rl.algorithm.trajectories import Trajectories
from rl.policies.heads import Distribution

# Observations are deduplicated where that leaves at most this share of the rows: gathering costs little then.
_WORTHWHILE = 0.5


class Batch(NamedTuple):
    """Steps of K tasks, flattened to N = T·E of each.

    Attributes:
        observations: the U distinct ones, or all of them (U = N).
        rows: the row in `observations` of every step; None where U = N.
        advantages: normalised, zero where masked.
        weights: weights·x is the mean over episodes of the mean over valid steps.
        sampled: log π_sampled of the actions; None where the policy that is differentiated sampled them.
    """

    observations: Float[Tensor, "K U O"]
    rows: Int[Tensor, "K N"] | None
    actions: Num[Tensor, "K N *A"]
    advantages: Float[Tensor, "K N"]
    weights: Float[Tensor, "K N"]
    sampled: Float[Tensor, "K N"] | None = None

    @property
    def observation_weights(self) -> Float[Tensor, "K U"]:
        """Weights of the distinct observations: the sums over the steps that saw them."""
        if self.rows is None:
            return self.weights
        return self.weights.new_zeros(self.observations.shape[:2]).scatter_add_(1, self.rows, self.weights)

    def tasks(self, which: slice) -> "Batch":
        """The tasks of a slice."""
        return Batch._make(None if part is None else part[which] for part in self)

    def cut(self, count: int) -> list["Batch"]:
        """About equal parts of every task's steps, at most `count`, with the weights that they have. Where observations
        repeat, there can be one alone.
        """
        if count == 1:
            return [self]
        size = -(-self.weights.shape[1] // count)
        parts = [itertools.repeat(None) if part is None else part.split(size, dim=1) for part in self]
        return [Batch._make(same) for same in zip(*parts, strict=False)]

    def subsample(self, fraction: float) -> "Batch":
        """The batch with this fraction of its steps, their weights scaled to sum to 1 a task.

        Which steps is drawn once for all tasks and iterations. Where observations repeat, all are kept: they cost
        little.
        """
        count = self.weights.shape[1]
        if fraction >= 1 or self.rows is not None:
            return self
        chosen = np.random.Generator(np.random.Philox(key=0)).permutation(count)[: max(1, round(fraction * count))]
        steps = torch.from_numpy(np.sort(chosen)).to(self.weights.device)
        part = Batch._make(None if values is None else values[:, steps] for values in self)
        total = part.weights.sum(1, keepdim=True).clamp_min(torch.finfo(part.weights.dtype).tiny)
        return part._replace(weights=part.weights / total)

    def log_prob(self, distribution: Distribution) -> Float[Tensor, "K N"]:
        """log π of every step's action under the distribution at `observations`."""
        if self.rows is not None:
            distribution = distribution.gather(self.rows)
        return distribution.log_prob(self.actions)


@functools.cache
def _projection(size: int) -> Float64[np.ndarray, " O"]:
    """A fixed random direction; drawn once, since rollouts need it at every step."""
    return np.random.Generator(np.random.Philox(key=0)).standard_normal(size)


def distinct_rows(
    observations: Float[np.ndarray, "K N O"],
) -> tuple[Float[np.ndarray, "K U O"], Int[np.ndarray, "K N"]] | None:
    """Each task's distinct rows.

    Returns:
        (rows, padded with zeros to the largest U; index) with rows[k, index[k, n]] equal to observations[k, n]; or None
        where fewer than half of the rows repeat.
    """
    num_tasks, num_rows, size = observations.shape
    # Rows differ unless they agree in a random projection; only candidates are then compared exactly.
    first = np.unique(observations[0] @ _projection(size)).size
    if first > _WORTHWHILE * num_rows:
        return None
    found = []
    for rows in observations:
        packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * size))).reshape(-1)
        _, where, index = np.unique(packed, return_index=True, return_inverse=True)
        found.append((where, index))
    largest = max(where.size for where, _ in found)
    if largest > _WORTHWHILE * num_rows:
        return None
    distinct = np.zeros((num_tasks, largest, size), observations.dtype)
    for k, (where, _) in enumerate(found):
        distinct[k, : where.size] = observations[k, where]
    return distinct, np.stack([index for _, index in found])


def prepare(
    fitted_on: Trajectories,
    used_for: Sequence[Trajectories],
    gamma: float,
    gae_lambda: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[list[Batch], int]:
    """Fit the baseline on some episodes and make batches of these and of others with its advantages.

    The baseline and the advantages are computed on the device, in float64: they are cheap and the normal equations are
    not well conditioned.

    Args:
        fitted_on: before the update; the baseline learns their returns.
        used_for: of the same tasks.
        gamma, gae_lambda: of the returns and of the advantages.
        dtype, device: of the batches.

    Returns:
        (a batch for each entry of `used_for`, number of ridge retries)
    """
    sent, fitted = _sent(fitted_on, device)
    targets = returns.discounted_returns(fitted["rewards"], gamma)
    design = baseline.features(fitted["observations"], fitted["mask"])
    coefficients, retries = baseline.fit(design, targets * fitted["mask"])
    batches = []
    for episodes in used_for:
        if episodes is not fitted_on:
            sent, fitted = _sent(episodes, device)
            design = baseline.features(fitted["observations"], fitted["mask"])
        values = baseline.values(design, coefficients)
        raw = returns.generalized_advantages(fitted["rewards"], values, gamma, gae_lambda)
        advantages = returns.normalize(raw, fitted["mask"])
        weights = returns.step_weights(fitted["mask"])
        batches.append(_batch(episodes, sent["observations"], advantages, weights, dtype, device))
    return batches, retries


def prepare_updates(
    episodes: Sequence[Trajectories],
    gamma: float,
    gae_lambda: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[list[Batch], int]:
    """As `prepare`, of episodes after 0, 1, 2, … updates: the baseline of each update is fitted to its own episodes,
    and that of the last one serves the episodes after it, too.
    """
    batches, retries = [], 0
    for number in range(len(episodes) - 1):
        stop = number + 1 if number < len(episodes) - 2 else number + 2
        made, more = prepare(episodes[number], episodes[number:stop], gamma, gae_lambda, dtype, device)
        batches += made
        retries += more
    return batches, retries


def _sent(episodes: Trajectories, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(some arrays of the episodes on the device, as they are: float32 is half of what float64 would be to send; the
    same in float64)
    """
    names = ("observations", "rewards", "mask")
    sent = {name: torch.from_numpy(getattr(episodes, name)).to(device) for name in names}
    return sent, {name: value.double() for name, value in sent.items()}


def _batch(
    episodes: Trajectories,
    observations: Float[Tensor, "K T E O"],
    advantages: Float[Tensor, "K T E"],
    weights: Float[Tensor, "K T E"],
    dtype: torch.dtype,
    device: torch.device | str,
) -> Batch:
    num_tasks, horizon, num_episodes, size = episodes.observations.shape
    repeats = distinct_rows(episodes.observations.reshape(num_tasks, horizon * num_episodes, size))
    if repeats is None:
        observations, rows = observations.flatten(1, 2), None
    else:
        observations, rows = (torch.from_numpy(array).to(device) for array in repeats)
    actions = torch.from_numpy(episodes.actions).flatten(1, 2)
    return Batch(
        observations=observations.to(dtype),
        rows=rows,
        actions=actions.to(device, dtype if actions.is_floating_point() else torch.int64),
        advantages=advantages.flatten(1, 2).to(device, dtype),
        weights=weights.flatten(1, 2).to(device, dtype),
    )
