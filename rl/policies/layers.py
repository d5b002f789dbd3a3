"""Hidden layers: plain, or gated unit by unit by a small neuromodulatory network (arXiv 2111.00134, section 4)."""

import torch
from torch.nn import functional

from rl.policies.elementwise import relu


def affine(inputs, weight, bias, context=None):
    """W [x, φ] + b, with any leading task axis on weights and context.

    The context is the same for all rows of a task, so its share of the product is made once a task and the
    concatenation [x, φ] never exists.

    Args:
        inputs: x [K, N, I]
        weight: W [out, I + C] or, a matrix a task, [K, out, I + C]
        bias: b [out] or [K, out]
        context: φ [K, C] or None (C = 0)

    Returns:
        [K, N, out]
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


def plain(params, name, inputs, context, record, imposed=None):
    """W x + b (the caller applies the nonlinearity); without gates, nothing can be imposed."""
    return affine(inputs, params[f"{name}.weight"], params[f"{name}.bias"], context)


def modulated(gate):
    """A neuromodulated layer: (W x + b) ∘ g,  g = gate(z),  z = W_o relu(W_i x + b_i) + b_o, `gate` an `Elementwise`.

    Gates that are `imposed` replace g.
    """

    def layer(params, name, inputs, context, record, imposed=None):
        # Through a flat gate no gradient passes, so nothing of its network needs a graph.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not gate.flat):
            modulators = relu(affine(inputs, params[f"{name}.in_nm.weight"], params[f"{name}.in_nm.bias"], context))
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


def bind_plain(params, name, context):
    """`plain` as a function of its input alone, without a graph: [K, N, I] -> [K, N, H], the same but for rounding."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    if context is None:
        transposed = weight.t()
        return lambda inputs: torch.addmm(bias, inputs.flatten(0, 1), transposed).view(*inputs.shape[:2], -1)
    # φ's share is the same in every call.
    split = weight.shape[1] - context.shape[1]
    transposed, shift = weight[:, :split].t(), affine(context[:, None, :], weight[:, split:], bias)
    return lambda inputs: torch.mm(inputs.flatten(0, 1), transposed).view(*inputs.shape[:2], -1).add_(shift)


def bind_modulated(gate):
    """As `bind_plain`, of `modulated`."""

    def bind(params, name, context):
        main, to_modulators = (bind_plain(params, f"{name}.{part}", context) for part in ("std", "in_nm"))
        to_gates = bind_plain(params, f"{name}.out_nm", None)
        return lambda inputs: gate.value(to_gates(to_modulators(inputs).relu_())).mul_(main(inputs))

    return bind


def plain_shapes(name, inputs, outputs):
    """Names and shapes of a plain layer's parameters, in the published order."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def modulated_shapes(name, inputs, outputs, modulators):
    """Names and shapes of a neuromodulated layer's parameters, in the published order."""
    return {
        **plain_shapes(f"{name}.std", inputs, outputs),
        **plain_shapes(f"{name}.in_nm", inputs, modulators),
        **plain_shapes(f"{name}.out_nm", modulators, outputs),
    }
