"""The policy network: a pure function of weights, context and observations."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rl.policies import heads, layers
from rl.policies.elementwise import GATES, NONLINEARITIES
from rl.policies.heads import Distribution
from rl.policies.layers import Context, Params, Shapes


class Architecture(NamedTuple):
    """The three independent choices (head, layer, adaptation) and the sizes that make a policy.

    `num_context_params` is 0 for MAML, whose policy has no context; `nm_gate` is None for plain layers; the gates' bias
    b_o starts at `nm_gate_bias`, and with `nm_without_context` they do not read φ; `choices` are the numbers of
    actions of several discrete choices, of which `action_size` is the sum.
    """

    observation_size: int
    action_size: int
    discrete: bool
    num_context_params: int
    hidden_sizes: tuple[int, ...]
    nonlinearity: str = "relu"
    nm_gate: str | None = None
    nm_size: int = 0
    nm_gate_bias: float = 0.0
    nm_without_context: bool = False
    choices: tuple[int, ...] = ()


class MLPPolicy:
    """π(a | o; φ, θ): θ and φ are arguments, never state.

    Axes: K tasks, N observations a task, O observation size, H units of a layer, M its modulators, C context
    parameters.
    """

    def __init__(self, architecture: Architecture):
        self.architecture = architecture
        self.head: heads.Head
        if architecture.choices:
            self.head = heads.MultiCategoricalHead(architecture.choices)
        else:
            head = heads.CategoricalHead if architecture.discrete else heads.NormalHead
            self.head = head(architecture.action_size)
        self.nonlinearity = NONLINEARITIES[architecture.nonlinearity]
        self.gate = GATES[architecture.nm_gate] if architecture.nm_gate else None
        self.layer: layers.Layer = layers.plain
        self.bind_layer: layers.BindLayer = layers.bind_plain
        if self.gate:
            reads = not architecture.nm_without_context
            self.layer, self.bind_layer = layers.modulated(self.gate, reads), layers.bind_modulated(self.gate, reads)
        self.layer_names = [f"layer{i}" for i in range(1, len(architecture.hidden_sizes) + 1)]
        self.output_name = f"layer{len(architecture.hidden_sizes) + 1}"

    @property
    def width(self) -> int:
        """The most units of a hidden layer."""
        return max(self.architecture.hidden_sizes)

    @property
    def differentiated_by_hand(self) -> bool:
        """Whether all its gates and nonlinearities declare their derivatives, as `Linearization` needs them."""
        return all(part.derivatives is not None for part in (self.nonlinearity, self.gate) if part is not None)

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Names and shapes of θ as in published checkpoints and in their order, which flat vectors follow."""
        sizes = self.architecture
        shapes = self.head.leading_shapes()
        inputs = sizes.observation_size + sizes.num_context_params
        gate_inputs = sizes.observation_size if sizes.nm_without_context else inputs
        for name, outputs in zip(self.layer_names, sizes.hidden_sizes, strict=True):
            if sizes.nm_gate:
                shapes |= layers.modulated_shapes(name, inputs, outputs, sizes.nm_size, gate_inputs)
            else:
                shapes |= layers.plain_shapes(name, inputs, outputs)
            inputs = gate_inputs = outputs
        return shapes | self.head.trailing_shapes(inputs, self.output_name)

    @property
    def num_params(self) -> int:
        """P, the number of weights in θ."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def initial_params(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Draw θ, float32: Xavier-uniform weights, zero log-std, zero biases but for the gates' (`nm_gate_bias`)."""
        params = {}
        for name, shape in self.shapes.items():
            if name.endswith(".weight"):
                bound = np.sqrt(6.0 / sum(shape))
                params[name] = torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))
            else:
                bias = self.architecture.nm_gate_bias if name.endswith(".out_nm.bias") else 0.0
                params[name] = torch.full(shape, bias)
        return params

    def initial_context(self, num_tasks: int, like: Tensor) -> Context:
        """φ at the start of a task: zeros of the dtype and device of `like`, or None where C = 0."""
        size = self.architecture.num_context_params
        return like.new_zeros(num_tasks, size) if size else None

    def bind(self, params: Params, context: Context) -> Callable[[Float[Tensor, "K N O"]], Distribution]:
        """The policy as a function of observations alone, for many calls without a graph.

        What is the same in each call is made once, φ's share of the first layer above all, and what is left takes fewer
        operations than a call of the policy. The outputs are the same but for rounding.
        """
        if any(params[name].dim() > len(shape) for name, shape in self.shapes.items()):
            # MAML, once adapted: a matrix a task.
            return functools.partial(self, params, context)
        hidden_layers = []
        for name in self.layer_names:
            hidden_layers.append(self.bind_layer(params, name, context))
            context = None
        to_distribution = self.head.bind(params, self.output_name)

        def act(observations: Float[Tensor, "K N O"]) -> Distribution:
            hidden = observations
            for layer in hidden_layers:
                hidden = self.nonlinearity.value(layer(hidden))
            return to_distribution(hidden)

        return act

    def __call__(
        self,
        params: Params,
        context: Context,
        observations: Float[Tensor, "K N O"],
        record: dict[str, Tensor] | None = None,
        gates: Params | None = None,
    ) -> Distribution:
        """The distribution over actions.

        Args:
            params: θ.
            context: φ.
            record: if given, gains every layer's activations: its `layer{i}.output` [K, N, H], the nonlinearity's
                `layer{i}.input` [K, N, H] and, where modulated, `layer{i}.modulators` [K, N, M],
                `layer{i}.preactivation`, `layer{i}.logits` and `layer{i}.gates` [K, N, H].
            gates: if given, `layer{i}` -> gates, broadcast to [K, N, H], that replace the computed ones.
        """
        hidden = observations
        for name in self.layer_names:
            imposed = None if gates is None else gates[name]
            summed = self.layer(params, name, hidden, context, record, imposed)
            hidden = self.nonlinearity.value(summed)
            context = None
            if record is not None:
                record[f"{name}.input"], record[f"{name}.output"] = summed, hidden
        return self.head(params, hidden, self.output_name)
