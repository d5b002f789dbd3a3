"""First and second derivatives of a context policy's network at one point (θ, φ), by hand.

The outer step multiplies by the same derivatives dozens of times. Automatic differentiation keeps several times more
for that than is needed, and streaming what it keeps through memory costs as much as the matrix products. Here a layer

    h = f(a ∘ g(z)),   a = W [x, φ] + b,   z = W_o m + b_o,   m = relu(n),   n = W_i [x, φ] + b_i

keeps its input, P = ∂h/∂a and Q = ∂h/∂z; plain layers and flat gates (hard ones) have no z. Where second derivatives
are wanted, the backward pass of a loss ℓ leaves ā = P h̄, z̄ = Q h̄ and the tangents follow (Pearlmutter 1994, the R
operator):

    dā = A da + B dz + P dh̄,   dz̄ = B da + C dz + Q dh̄,   A, B, C = h̄ ∘ second derivatives of f(a ∘ g(z))

Axes: K tasks, N rows (distinct observations) of each, H units. A bar marks the derivative of ℓ, a d the tangent.
"""

import torch


class Linearization:
    """The network linearized on the observations of K tasks.

    Args:
        policy: `MLPPolicy` with a context, its weights shared by all tasks, and `differentiated_by_hand`.
        params: θ.
        context: φ [K, C].
        observations: [K, N, O]
        second_order: whether `backward_tangent` will be asked for.

    Attributes:
        distribution: the policy's output there, outside of any graph.
    """

    def __init__(self, policy, params, context, observations, second_order=False):
        record = {}
        with torch.no_grad():
            self.distribution = policy(params, context, observations, record)
            self.layers = []
            inputs = observations
            for index, name in enumerate(policy.layer_names):
                read = context if index == 0 else None
                self.layers.append(_Layer(policy, params, name, inputs, record, read, second_order))
                inputs = record[f"{name}.output"]
            self.output = _Affine(params, policy.head.output_name(policy.output_name), inputs, None, second_order)

    def forward_tangent(self, tangent, d_context):
        """How the network's output moves.

        Args:
            tangent: dθ, a dict as θ, or None for zero.
            d_context: dφ [K, C], or None for zero.

        Returns:
            (d outputs [K, N, A], the flow that `backward_tangent` needs)
        """
        d_inputs, flow = None, []
        for layer in self.layers:
            d_outputs, moved = layer.forward_tangent(tangent, d_inputs, d_context)
            flow.append((d_inputs, *moved))
            d_inputs, d_context = d_outputs, None
        return self.output.tangent(tangent, d_inputs, None), (flow, d_inputs, tangent)

    def backward(self, cotangent, gradient):
        """Propagate ∂ℓ/∂outputs to θ and φ. Of a second-order linearization this can be done once.

        Args:
            cotangent: [K, N, A]
            gradient: dict as θ, to which the derivatives are added; None where only φ's are wanted.

        Returns:
            ∂ℓ/∂φ [K, C]
        """
        for layer in [self.output, *reversed(self.layers)]:
            cotangent = layer.backward(cotangent, gradient)
        return cotangent

    def backward_tangent(self, d_cotangent, flow, gradient):
        """How `backward` moves along a flow.

        Args:
            d_cotangent: how ∂ℓ/∂outputs moves [K, N, A].
            flow: from `forward_tangent`.
            gradient: dict as θ, to which the moves of ∂ℓ/∂θ are added; None where only φ's is wanted.

        Returns:
            d(∂ℓ/∂φ) [K, C]
        """
        flows, d_hidden, tangent = flow
        d_cotangent = self.output.backward_tangent(d_cotangent, tangent, d_hidden, None, gradient)
        for layer, moved in zip(reversed(self.layers), reversed(flows), strict=True):
            d_cotangent = layer.backward_tangent(d_cotangent, tangent, moved, gradient)
        return d_cotangent

    def nbytes(self):
        """Bytes kept."""
        kept = {}
        for layer in [self.output, *self.layers]:
            for value in layer.kept():
                kept[value.data_ptr()] = value.numel() * value.element_size()
        return sum(kept.values())


class _Affine:
    """W [x, φ] + b; its derivatives are named as its parameters. For second order it remembers what `backward` met."""

    def __init__(self, params, name, inputs, context, second_order):
        self.name = name
        self.second_order = second_order
        self.cotangent = self.sums = None
        self.inputs = inputs
        self.context = context
        self.split = inputs.shape[-1]
        self.weight = params[f"{name}.weight"].detach()

    def tangent(self, tangent, d_inputs, d_context):
        """[K, N, out], or [K, 1, out] where only the context moves; None where nothing moves."""
        result = common = None
        if tangent is not None:
            d_weight, d_bias = tangent[f"{self.name}.weight"], tangent[f"{self.name}.bias"]
            if self.context is None:
                result = torch.addmm(d_bias, _rows(self.inputs), d_weight.mT)
            else:
                result = _rows(self.inputs) @ d_weight[:, : self.split].mT
                common = torch.addmm(d_bias, self.context, d_weight[:, self.split :].mT)
        if d_context is not None:
            moved = d_context @ self.weight[:, self.split :].mT
            common = moved if common is None else common + moved
        if d_inputs is not None:
            rows = _rows(d_inputs)
            result = rows @ self.weight.mT if result is None else result.addmm_(rows, self.weight.mT)
        if result is None:
            return None if common is None else common[:, None, :]
        result = result.view(*self.inputs.shape[:2], -1)
        return result if common is None else result.add_(common[:, None, :])

    def backward(self, cotangent, gradient, onto=None):
        """x̄ [K, N, in], added to `onto` if given; for the layer that reads the context φ̄ [K, C]."""
        sums = cotangent.sum(1) if gradient is not None or self.context is not None else None
        if self.second_order:
            self.cotangent, self.sums = cotangent, sums
        if gradient is not None:
            self._accumulate(gradient, cotangent, sums, self.inputs, self.context)
            gradient[f"{self.name}.bias"].add_(sums.sum(0))
        return self._pull(cotangent, sums, onto)

    def backward_tangent(self, d_cotangent, tangent, d_inputs, d_context, gradient, onto=None):
        """dx̄ = c̄ dW + dc̄ W, added to `onto` if given, or dφ̄; adds dW̄ = dc̄ᵀ x + c̄ᵀ dx."""
        d_sums = d_cotangent.sum(1) if gradient is not None or self.context is not None else None
        if gradient is not None:
            self._accumulate(gradient, d_cotangent, d_sums, self.inputs, self.context)
            self._accumulate(gradient, self.cotangent, self.sums, d_inputs, d_context)
            gradient[f"{self.name}.bias"].add_(d_sums.sum(0))
        result = self._pull(d_cotangent, d_sums, onto)
        if tangent is not None:
            d_weight = tangent[f"{self.name}.weight"]
            if self.context is None:
                _rows(result).addmm_(_rows(self.cotangent), d_weight)
            else:
                result.addmm_(self.sums, d_weight[:, self.split :])
        return result

    def _accumulate(self, gradient, cotangent, sums, inputs, context):
        """Add cotangentᵀ [x, φ] to the gradient of W, where sums [K, out] are the cotangent's over rows; x or φ None
        stands for zero."""
        weight = gradient[f"{self.name}.weight"]
        if inputs is not None:
            weight[:, : self.split].addmm_(_rows(cotangent).mT, _rows(inputs))
        if context is not None:
            weight[:, self.split :].addmm_(sums.mT, context)

    def _pull(self, cotangent, sums, onto):
        """cotangent · W, for the inputs or, where there is one, for the context, whose rows are all alike."""
        if self.context is None:
            factors, shape = (_rows(cotangent), self.weight), (*cotangent.shape[:2], -1)
        else:
            factors, shape = (sums, self.weight[:, self.split :]), (len(sums), -1)
        if onto is None:
            return torch.mm(*factors).view(shape)
        onto.view(-1, onto.shape[-1]).addmm_(*factors)
        return onto

    def kept(self):
        """The tensors that it keeps."""
        return [self.inputs] if self.cotangent is None else [self.inputs, self.cotangent]


class _Layer:
    """A hidden layer: plain, or modulated by a gate, which is either flat or learns."""

    def __init__(self, policy, params, name, inputs, record, context, second_order):
        gate, of_nonlinearity = policy.gate, policy.nonlinearity.derivatives
        summed, hidden, gates = (record.get(f"{name}.{part}") for part in ("input", "output", "gates"))
        slope = of_nonlinearity.slope(summed, hidden)
        bend = of_nonlinearity.ratio(summed, hidden) * slope if second_order and of_nonlinearity.ratio else None
        self.learns = gate is not None and not gate.flat
        self.second_order = second_order
        self.main = _Affine(params, f"{name}.std" if gate else name, inputs, context, second_order)
        self.by_main = slope if gate is None else slope * gates
        # ∂²h/∂a², ∂²h/∂a∂z and ∂²h/∂z² of h = f(a g), g = gate(z); None where they vanish.
        self.main_main = self.main_gate = self.gate_gate = None
        if bend is not None:
            self.main_main = bend if gate is None else bend * gates.square()
        if self.learns:
            modulators, logits = record[f"{name}.modulators"], record[f"{name}.logits"]
            self.reader = _Affine(params, f"{name}.in_nm", inputs, context, second_order)
            self.writer = _Affine(params, f"{name}.out_nm", modulators, None, second_order)
            self.active = modulators.sign()
            opening = gate.derivatives.slope(logits, gates)
            moved = record[f"{name}.preactivation"] * opening
            self.by_gate = slope * moved
            if second_order:
                self.main_gate = slope * opening
                if gate.derivatives.ratio:
                    self.gate_gate = self.by_gate * gate.derivatives.ratio(logits, gates)
                if bend is not None:
                    self.main_gate += bend * gates * moved
                    self.gate_gate = _plus(self.gate_gate, bend * moved.square())

    def forward_tangent(self, tangent, d_inputs, d_context):
        """(dh, (da, dm, dz, dφ))"""
        d_main = self.main.tangent(tangent, d_inputs, d_context)
        d_hidden = self.by_main * d_main
        if not self.learns:
            return d_hidden, (d_main, None, None, d_context)
        d_modulators = self.active * self.reader.tangent(tangent, d_inputs, d_context)
        d_gates = self.writer.tangent(tangent, d_modulators, None)
        return d_hidden.addcmul_(self.by_gate, d_gates), (d_main, d_modulators, d_gates, d_context)

    def backward(self, cotangent, gradient):
        """x̄ or φ̄ from h̄."""
        result = self.main.backward(self.by_main * cotangent, gradient)
        if self.learns:
            modulators = self.writer.backward(self.by_gate * cotangent, gradient).mul_(self.active)
            result = self.reader.backward(modulators, gradient, onto=result)
        if self.second_order:
            # From now on weighted by h̄: A, B and C.
            for weighted in (self.main_main, self.main_gate, self.gate_gate):
                if weighted is not None:
                    weighted.mul_(cotangent)
        return result

    def backward_tangent(self, d_cotangent, tangent, moved, gradient):
        """dx̄ or dφ̄ from dh̄."""
        d_inputs, d_main, d_modulators, d_gates, d_context = moved
        d_main_bar = self.by_main * d_cotangent
        if self.main_main is not None:
            d_main_bar.addcmul_(self.main_main, d_main)
        if self.learns:
            d_main_bar.addcmul_(self.main_gate, d_gates)
        result = self.main.backward_tangent(d_main_bar, tangent, d_inputs, d_context, gradient)
        if self.learns:
            d_writer = self.by_gate * d_cotangent
            d_writer.addcmul_(self.main_gate, d_main)
            if self.gate_gate is not None:
                d_writer.addcmul_(self.gate_gate, d_gates)
            d_reader = self.writer.backward_tangent(d_writer, tangent, d_modulators, None, gradient)
            d_reader.mul_(self.active)
            result = self.reader.backward_tangent(d_reader, tangent, d_inputs, d_context, gradient, onto=result)
        return result

    def kept(self):
        """The tensors that it keeps."""
        return [value for value in _tensors(vars(self).values()) if value.dim() == 3]


def _plus(left, right):
    """left + right, None standing for zero."""
    return right if left is None else left + right


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)
        elif isinstance(value, _Affine):
            yield from value.kept()


def _rows(values):
    """[K, N, X] -> [K·N, X]"""
    return values.flatten(0, 1)
