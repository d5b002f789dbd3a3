"""Output distributions: their parameters, log-probabilities and divergences.

A head turns the last hidden layer into the parameters of a distribution over actions, a tuple of tensors. Axes: K
tasks, N observations, A action size or number of actions.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from rl.policies.layers import Params, Shapes, affine, bind_plain, plain_shapes

MIN_LOG_STD = math.log(1e-6)
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

Self = TypeVar("Self", bound="Distribution")


@runtime_checkable
class Distribution(Protocol):
    """Distributions over the actions at K·N observations; iterated over, it gives its parameters."""

    def __iter__(self) -> Iterator[Any]: ...

    @property
    def mode(self) -> Shaped[Tensor, "K N ..."]:
        """The likeliest actions."""
        ...

    def log_prob(self, actions: Shaped[Tensor, "K N ..."]) -> Float[Tensor, "K N"]:
        """log π(a), summed over action dimensions."""
        ...

    def kl(self: Self, other: Self) -> Float[Tensor, "K N"]:
        """KL(self ‖ other)."""
        ...

    def entropy(self) -> Float[Tensor, "K N"]:
        """−E log π(a), summed over action dimensions."""
        ...

    def gather(self: Self, index: Int[Tensor, "K M"]) -> Self:
        """The distribution at these rows of distinct observations."""
        ...

    def sample(self, noise: Float[Tensor, "K N ..."]) -> Shaped[Tensor, "K N ..."]:
        """Actions from the noise that `rl.sampling.rollout.action_noise` draws for this kind."""
        ...

    def at(self: Self, *parameters: Float[Tensor, "..."]) -> Self:
        """The distribution of this kind with other parameters."""
        ...

    def detach(self: Self) -> Self:
        """The same distribution outside of any graph."""
        ...


class Normal(NamedTuple):
    """Independent normal distributions."""

    mean: Float[Tensor, "K N A"]
    log_std: Float[Tensor, "K 1 A"] | Float[Tensor, "1 1 A"]

    @property
    def mode(self) -> Float[Tensor, "K N A"]:
        """The mean."""
        return self.mean

    def log_prob(self, actions: Float[Tensor, "K N A"]) -> Float[Tensor, "K N"]:
        """log π(a) summed over action dimensions."""
        scaled = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * scaled.square() - self.log_std - _HALF_LOG_TWO_PI).sum(-1)

    def kl(self, other: "Normal") -> Float[Tensor, "K N"]:
        """KL(self ‖ other), averaged (as published) over action dimensions."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        shift = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * (ratio + shift.square() - 1) + other.log_std - self.log_std).mean(-1)

    def entropy(self) -> Float[Tensor, "K N"]:
        """As `Distribution.entropy`."""
        return (self.log_std + 0.5 + _HALF_LOG_TWO_PI).sum(-1).expand(self.mean.shape[:-1])

    def gather(self, index: Int[Tensor, "K M"]) -> "Normal":
        """The distribution at these rows of distinct observations."""
        return Normal(gather_rows(self.mean, index), self.log_std)

    def sample(self, noise: Float[Tensor, "K N A"]) -> Float[Tensor, "K N A"]:
        """Actions from standard normal noise."""
        return self.mean + torch.exp(self.log_std) * noise

    def at(self, *parameters: Float[Tensor, "..."]) -> "Normal":
        """With another mean and log_std."""
        return Normal(*parameters)

    def detach(self) -> "Normal":
        """Outside of any graph."""
        return Normal(self.mean.detach(), self.log_std.detach())


class Categorical(NamedTuple):
    """A choice among A actions."""

    log_probs: Float[Tensor, "K N A"]

    @property
    def mode(self) -> Int[Tensor, "K N"]:
        """The likeliest action."""
        return self.log_probs.argmax(-1)

    def log_prob(self, actions: Int[Tensor, "K N"]) -> Float[Tensor, "K N"]:
        """log π(a)."""
        return self.log_probs.gather(-1, actions[..., None]).squeeze(-1)

    def kl(self, other: "Categorical") -> Float[Tensor, "K N"]:
        """KL(self ‖ other)."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def entropy(self) -> Float[Tensor, "K N"]:
        """As `Distribution.entropy`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def gather(self, index: Int[Tensor, "K M"]) -> "Categorical":
        """The distribution at these rows of distinct observations."""
        return Categorical(gather_rows(self.log_probs, index))

    def sample(self, noise: Float[Tensor, "K N"]) -> Int[Tensor, "K N"]:
        """Actions from uniform noise in [0, 1) by inversion of the cumulative distribution."""
        cumulative = self.log_probs.exp().cumsum(-1)
        # Rounding can leave the last cumulative probability a little below 1: the last action is never skipped.
        return (noise[..., None] >= cumulative[..., :-1]).sum(-1)

    def at(self, *parameters: Float[Tensor, "..."]) -> "Categorical":
        """With other log-probabilities, which need not be normalised."""
        (log_probs,) = parameters
        return Categorical(torch.log_softmax(log_probs, dim=-1))

    def detach(self) -> "Categorical":
        """Outside of any graph."""
        return Categorical(self.log_probs.detach())


@dataclasses.dataclass(frozen=True)
class MultiCategorical:
    """Independent choices among a₁, …, a_D actions, A = Σ a_d in all.

    Attributes:
        log_probs: of each choice's actions, one choice after the other.
        choices: a₁, …, a_D.
    """

    log_probs: Float[Tensor, "K N A"]
    choices: tuple[int, ...]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.log_probs,))  # the choices are no parameter

    @property
    def parts(self) -> list[Categorical]:
        """Each choice alone."""
        return [Categorical(part) for part in self.log_probs.split(self.choices, -1)]

    @property
    def mode(self) -> Int[Tensor, "K N D"]:
        """The likeliest action of each choice."""
        return torch.stack([part.mode for part in self.parts], -1)

    def log_prob(self, actions: Int[Tensor, "K N D"]) -> Float[Tensor, "K N"]:
        """log π(a) summed over the choices."""
        return torch.stack([part.log_prob(actions[..., d]) for d, part in enumerate(self.parts)]).sum(0)

    def kl(self, other: "MultiCategorical") -> Float[Tensor, "K N"]:
        """KL(self ‖ other), summed over the choices, which are independent."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def entropy(self) -> Float[Tensor, "K N"]:
        """As `Distribution.entropy`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def gather(self, index: Int[Tensor, "K M"]) -> "MultiCategorical":
        """The distribution at these rows of distinct observations."""
        return MultiCategorical(gather_rows(self.log_probs, index), self.choices)

    def sample(self, noise: Float[Tensor, "K N D"]) -> Int[Tensor, "K N D"]:
        """Actions from standard normal noise, whose cumulative distribution makes it uniform."""
        uniform = torch.special.ndtr(noise)
        return torch.stack([part.sample(uniform[..., d]) for d, part in enumerate(self.parts)], -1)

    def at(self, *parameters: Float[Tensor, "..."]) -> "MultiCategorical":
        """With other log-probabilities, which need not be normalised."""
        (log_probs,) = parameters
        parts = [torch.log_softmax(part, dim=-1) for part in log_probs.split(self.choices, -1)]
        return MultiCategorical(torch.cat(parts, -1), self.choices)

    def detach(self) -> "MultiCategorical":
        """Outside of any graph."""
        return MultiCategorical(self.log_probs.detach(), self.choices)


def gather_rows(values: Float[Tensor, "K U A"], index: Int[Tensor, "K N"]) -> Float[Tensor, "K N A"]:
    """Each task's rows at its indices."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


class Head(abc.ABC):
    """What heads share: the distribution's parameters are an affine map of the last hidden layer.

    Args:
        size: A.
    """

    discrete: bool

    def __init__(self, size: int):
        self.size = size

    @abc.abstractmethod
    def leading_shapes(self) -> Shapes:
        """Parameters that stand before the layers', in the published order."""

    @abc.abstractmethod
    def output_name(self, last_layer: str) -> str:
        """The name of the affine map that makes the outputs."""

    @abc.abstractmethod
    def distribution(self, outputs: Float[Tensor, "K N A"], params: Params) -> Distribution:
        """The distribution with the affine map's outputs."""

    def trailing_shapes(self, inputs: int, last_layer: str) -> Shapes:
        """Parameters that stand after the layers', in the published order."""
        return plain_shapes(self.output_name(last_layer), inputs, self.size)

    def __call__(self, params: Params, hidden: Float[Tensor, "K N H"], last_layer: str) -> Distribution:
        """The distribution of the last hidden layer."""
        name = self.output_name(last_layer)
        return self.distribution(affine(hidden, params[f"{name}.weight"], params[f"{name}.bias"]), params)

    def bind(self, params: Params, last_layer: str) -> Callable[[Float[Tensor, "K N H"]], Distribution]:
        """As `MLPPolicy.bind`, of the last hidden layer."""
        outputs = bind_plain(params, self.output_name(last_layer), None)
        return lambda hidden: self.distribution(outputs(hidden), params)


class NormalHead(Head):
    """A mean that depends on the observation and a learnt log-standard-deviation that does not."""

    discrete = False

    def leading_shapes(self) -> Shapes:
        """The log-standard-deviations."""
        return {"sigma": (self.size,)}

    def output_name(self, last_layer: str) -> str:
        """As published."""
        return "mu"

    def distribution(self, outputs: Float[Tensor, "K N A"], params: Params) -> Normal:
        """The outputs are the means."""
        log_std = torch.clamp(params["sigma"], min=MIN_LOG_STD)
        return Normal(outputs, log_std.reshape(-1, 1, self.size))


class CategoricalHead(Head):
    """Logits, held as normalised log-probabilities."""

    discrete = True

    def leading_shapes(self) -> Shapes:
        """None: all its parameters stand last."""
        return {}

    def output_name(self, last_layer: str) -> str:
        """As published."""
        return last_layer

    def distribution(self, outputs: Float[Tensor, "K N A"], params: Params) -> Distribution:
        """The outputs are the logits, up to a constant."""
        return Categorical(torch.log_softmax(outputs, dim=-1))


class MultiCategoricalHead(CategoricalHead):
    """Logits of several independent choices, held as normalised log-probabilities of each.

    Args:
        choices: how many actions each choice has.
    """

    discrete = False  # its noise is that of as many dimensions as there are choices

    def __init__(self, choices: tuple[int, ...]):
        super().__init__(len(choices))
        self.choices = choices

    def trailing_shapes(self, inputs: int, last_layer: str) -> Shapes:
        """A logit for each action of each choice."""
        return plain_shapes(self.output_name(last_layer), inputs, sum(self.choices))

    def distribution(self, outputs: Float[Tensor, "K N A"], params: Params) -> MultiCategorical:
        """The outputs are the logits, up to a constant for each choice."""
        return MultiCategorical(outputs, self.choices).at(outputs)
