"""Hidden layers: plain, or gated unit by unit by a small neuromodulatory network (arXiv 2111.00134, section 4).

Axes: K tasks, N observations a task, I inputs, C context parameters, H units, M modulators.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rl.policies.elementwise import Elementwise, relu

Params = Mapping[str, Tensor]  # θ; each tensor may carry a leading task axis
Shapes = dict[str, tuple[int, ...]]
Context = Float[Tensor, "K C"] | None
BoundLayer = Callable[[Float[Tensor, "K N I"]], Float[Tensor, "K N H"]]
BindLayer = Callable[[Params, str, Context], BoundLayer]


@runtime_checkable
class Layer(Protocol):
    """The argument of the nonlinearity, from the layer's parameters `name.*` in θ."""

    def __call__(
        self,
        params: Params,
        name: str,
        inputs: Float[Tensor, "K N I"],
        context: Context,
        record: dict[str, Tensor] | None,
        imposed: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "K N H"]:
        """With a record, note activations in it; gates that are `imposed` replace the layer's own."""
        ...


def affine(
    inputs: Float[Tensor, "K N I"],
    weight: Float[Tensor, "H J"] | Float[Tensor, "K H J"],
    bias: Float[Tensor, " H"] | Float[Tensor, "K H"],
    context: Context = None,
) -> Float[Tensor, "K N H"]:
    """W [x, φ] + b, with J = I + C columns and any leading task axis on weights and context.

    The context is the same for all rows of a task, so its share of the product is made once a task and the
    concatenation [x, φ] never exists.
    """
    if context is not None:
        split = inputs.shape[-1]
        bias = affine(context[:, None, :], weight[..., split:], bias).squeeze(1)
        weight = weight[..., :split]
    if weight.dim() == 2:
        if bias.dim() == 1:
            return functional.linear(inputs, weight, bias)
        return functional.linear(inputs, weight) + bias[:, None, :]
    return torch.baddbmm(bias[:, None, :], inputs, weight.mT)


def plain(
    params: Params,
    name: str,
    inputs: Float[Tensor, "K N I"],
    context: Context,
    record: dict[str, Tensor] | None,
    imposed: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "K N H"]:
    """The `Layer` W x + b; without gates, nothing can be imposed."""
    return affine(inputs, params[f"{name}.weight"], params[f"{name}.bias"], context)


def modulated(gate: Elementwise, gates_read_context: bool = True) -> Layer:
    """The `Layer` (W x + b) ∘ g,  g = gate(z),  z = W_o relu(W_i x + b_i) + b_o, with x and φ, or x alone, in z."""

    def layer(
        params: Params,
        name: str,
        inputs: Float[Tensor, "K N I"],
        context: Context,
        record: dict[str, Tensor] | None,
        imposed: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "K N H"]:
        # Through a flat gate no gradient passes, so nothing of its network needs a graph.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not gate.flat):
            read = context if gates_read_context else None
            modulators = relu(affine(inputs, params[f"{name}.in_nm.weight"], params[f"{name}.in_nm.bias"], read))
            logits = affine(modulators, params[f"{name}.out_nm.weight"], params[f"{name}.out_nm.bias"])
            gates = gate.value(logits)
        gates = gates if imposed is None else imposed
        preactivation = affine(inputs, params[f"{name}.std.weight"], params[f"{name}.std.bias"], context)
        if record is not None:
            record[f"{name}.modulators"] = modulators
            record[f"{name}.logits"] = logits
            record[f"{name}.gates"] = gates
            record[f"{name}.preactivation"] = preactivation
        return preactivation * gates

    return layer


def bind_plain(params: Params, name: str, context: Context) -> BoundLayer:
    """`plain` as a function of its input alone, without a graph; the same but for rounding."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    if context is None:
        transposed = weight.t()
        return lambda inputs: torch.addmm(bias, inputs.flatten(0, 1), transposed).view(*inputs.shape[:2], -1)
    # φ's share is the same in every call.
    split = weight.shape[1] - context.shape[1]
    transposed, shift = weight[:, :split].t(), affine(context[:, None, :], weight[:, split:], bias)
    return lambda inputs: torch.mm(inputs.flatten(0, 1), transposed).view(*inputs.shape[:2], -1).add_(shift)


def bind_modulated(gate: Elementwise, gates_read_context: bool = True) -> BindLayer:
    """As `bind_plain`, of `modulated`."""

    def bind(params: Params, name: str, context: Context) -> BoundLayer:
        main = bind_plain(params, f"{name}.std", context)
        to_modulators = bind_plain(params, f"{name}.in_nm", context if gates_read_context else None)
        to_gates = bind_plain(params, f"{name}.out_nm", None)
        return lambda inputs: gate.value(to_gates(to_modulators(inputs).relu_())).mul_(main(inputs))

    return bind


def plain_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Names and shapes of a plain layer's parameters, in the published order."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def modulated_shapes(name: str, inputs: int, outputs: int, modulators: int, gate_inputs: int) -> Shapes:
    """Names and shapes of a neuromodulated layer's parameters, in the published order."""
    return {
        **plain_shapes(f"{name}.std", inputs, outputs),
        **plain_shapes(f"{name}.in_nm", gate_inputs, modulators),
        **plain_shapes(f"{name}.out_nm", modulators, outputs),
    }
