"""Output distributions: their parameters, log-probabilities and divergences.

A head turns the last hidden layer into the parameters of a distribution over actions, a tuple of tensors. Axes: K
tasks, N observations, A action size or number of actions.
"""

import math
from typing import NamedTuple

import torch

from rl.policies.layers import affine, bind_plain, plain_shapes

MIN_LOG_STD = math.log(1e-6)
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Normal(NamedTuple):
    """Independent normal distributions: mean [K, N, A], log_std [K, 1, A] or [1, 1, A]."""

    mean: torch.Tensor
    log_std: torch.Tensor

    def log_prob(self, actions):
        """log π(a) summed over action dimensions: actions [K, N, A] -> [K, N]."""
        scaled = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * scaled.square() - self.log_std - _HALF_LOG_TWO_PI).sum(-1)

    def kl(self, other):
        """KL(self ‖ other), averaged (as published) over action dimensions: [K, N]."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        shift = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * (ratio + shift.square() - 1) + other.log_std - self.log_std).mean(-1)

    def gather(self, index):
        """The distribution at rows index [K, N] of distinct observations."""
        return Normal(gather_rows(self.mean, index), self.log_std)

    def sample(self, noise):
        """Actions [K, N, A] from standard normal noise of that shape."""
        return self.mean + torch.exp(self.log_std) * noise

    def at(self, mean, log_std):
        """The distribution of this kind with other parameters."""
        return Normal(mean, log_std)

    def detach(self):
        """The same distribution outside of any graph."""
        return Normal(self.mean.detach(), self.log_std.detach())


class Categorical(NamedTuple):
    """A choice among A actions: log_probs [K, N, A]."""

    log_probs: torch.Tensor

    def log_prob(self, actions):
        """log π(a): actions [K, N] int64 -> [K, N]."""
        return self.log_probs.gather(-1, actions[..., None]).squeeze(-1)

    def kl(self, other):
        """KL(self ‖ other): [K, N]."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def gather(self, index):
        """The distribution at rows index [K, N] of distinct observations."""
        return Categorical(gather_rows(self.log_probs, index))

    def sample(self, noise):
        """Actions [K, N] from uniform noise [K, N] by inversion of the cumulative distribution."""
        cumulative = self.log_probs.exp().cumsum(-1)
        # Rounding can leave the last cumulative probability a little below 1: the last action is never skipped.
        return (noise[..., None] >= cumulative[..., :-1]).sum(-1)

    def at(self, log_probs):
        """The distribution of this kind with other parameters, which need not be normalised."""
        return Categorical(torch.log_softmax(log_probs, dim=-1))

    def detach(self):
        """The same distribution outside of any graph."""
        return Categorical(self.log_probs.detach())


Distribution = Normal | Categorical


def gather_rows(values, index):
    """values [K, U, A] at index [K, N] -> [K, N, A]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


class Head:
    """What both heads share: the distribution's parameters are an affine map of the last hidden layer."""

    def __init__(self, size):
        self.size = size

    def trailing_shapes(self, inputs, last_layer):
        """Parameters that stand after the layers', in the published order."""
        return plain_shapes(self.output_name(last_layer), inputs, self.size)

    def __call__(self, params, hidden, last_layer):
        """hidden [K, N, H] -> a distribution."""
        name = self.output_name(last_layer)
        return self.distribution(affine(hidden, params[f"{name}.weight"], params[f"{name}.bias"]), params)

    def bind(self, params, last_layer):
        """As `MLPPolicy.bind`: a function hidden [K, N, H] -> distribution."""
        outputs = bind_plain(params, self.output_name(last_layer), None)
        return lambda hidden: self.distribution(outputs(hidden), params)


class NormalHead(Head):
    """A mean that depends on the observation and a learnt log-standard-deviation that does not."""

    discrete = False

    def leading_shapes(self):
        """Parameters that stand before the layers' in the published order."""
        return {"sigma": (self.size,)}

    def output_name(self, last_layer):
        """The name of the affine map that makes the outputs."""
        return "mu"

    def distribution(self, outputs, params):
        """outputs [K, N, A], the means -> Normal."""
        log_std = torch.clamp(params["sigma"], min=MIN_LOG_STD)
        return Normal(outputs, log_std.reshape(-1, 1, self.size))


class CategoricalHead(Head):
    """Logits, held as normalised log-probabilities."""

    discrete = True

    def leading_shapes(self):
        """None: all its parameters stand last."""
        return {}

    def output_name(self, last_layer):
        """The name of the affine map that makes the outputs."""
        return last_layer

    def distribution(self, outputs, params):
        """outputs [K, N, A], the logits up to a constant -> Categorical."""
        return Categorical(torch.log_softmax(outputs, dim=-1))
