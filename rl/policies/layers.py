"""Hidden layers: plain, or gated unit by unit by a small neuromodulatory network (arXiv 2111.00134, section 4)."""

import torch
from torch.nn import functional


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


def relu(x):
    """max(x, 0). In a graph it is a product with the constant 1[x > 0]: its derivatives of any order then are products
    too, which cost a third of PyTorch's own.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        # A comparison that is converted to floats takes three times as long.
        return x * torch.relu(x.detach()).sign_()
    return torch.relu(x)


def plain(params, name, inputs, context, record, imposed=None):
    """W x + b (the caller applies the nonlinearity); without gates, nothing can be imposed."""
    return affine(inputs, params[f"{name}.weight"], params[f"{name}.bias"], context)


def soft_gate(logits):
    """tanh: a gate scales and may flip its unit."""
    return torch.tanh(logits)


def hard_gate(logits):
    """sign, with sign(0) = +1: a gate may flip its unit. Its derivative is zero wherever it exists."""
    # Adding 0 makes −0 positive; copysign takes an eighth of the time of a choice between two constants.
    return torch.copysign(logits.new_ones(()), logits.detach() + 0.0)


GATES = {"soft": soft_gate, "hard": hard_gate}


def modulated(gate):
    """A neuromodulated layer with the given gate: (W x + b) ∘ g,  g = gate(W_o relu(W_i x + b_i) + b_o).

    Gates that are `imposed` stand in the place of g.
    """

    def layer(params, name, inputs, context, record, imposed=None):
        # The hard gate passes no gradient, so nothing of its network needs a graph.
        with torch.set_grad_enabled(torch.is_grad_enabled() and gate is not hard_gate):
            modulators = relu(affine(inputs, params[f"{name}.in_nm.weight"], params[f"{name}.in_nm.bias"], context))
            gates = gate(affine(modulators, params[f"{name}.out_nm.weight"], params[f"{name}.out_nm.bias"]))
        gates = gates if imposed is None else imposed
        preactivation = affine(inputs, params[f"{name}.std.weight"], params[f"{name}.std.bias"], context)
        if record is not None:
            record[f"{name}.modulators"] = modulators
            record[f"{name}.gates"] = gates
            record[f"{name}.preactivation"] = preactivation
        return preactivation * gates

    return layer


def bind_plain(params, name, context):
    """`plain` as a function of its input alone, without a graph: [K, N, I] -> [K, N, H], the same bytes."""
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
        return lambda inputs: gate(to_gates(to_modulators(inputs).relu_())).mul_(main(inputs))

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
