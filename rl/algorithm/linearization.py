"""First and second derivatives of a context policy's network at one point (θ, φ), by hand.

The outer step multiplies by the same derivatives dozens of times. Automatic differentiation keeps several times more
for that than is needed, and streaming what it keeps through memory costs as much as the matrix products. Here a layer

    h = f(u),   u = a ∘ g(z),   a = W [x, φ] + b,   z = W_o m + b_o,   m = relu(n),   n = W_i [x, φ] + b_i

(plain layers and flat gates, the hard ones, have no z) keeps its inputs and its derivatives, products of f′ and f″ at u
with g and g′ at z:

    dh_da = f′ g,       d2h_daa = f″ g²
    dh_dz = f′ a g′,    d2h_daz = f′ g′ + f″ g a g′,    d2h_dzz = f′ a g″ + f″ (a g′)²

A bar marks the derivative of a loss ℓ, a d the tangent. The forward tangent is dh = dh_da da + dh_dz dz, the backward
pass ā = dh_da h̄, z̄ = dh_dz h̄, and its own tangent (Pearlmutter 1994, the R operator)

    dā = dh_da dh̄ + h̄ (d2h_daa da + d2h_daz dz),    dz̄ = dh_dz dh̄ + h̄ (d2h_daz da + d2h_dzz dz)

Axes: K tasks, N rows (distinct observations) of each, H units.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rl.algorithm.affine import Affine, Params, Rows
from rl.policies import MLPPolicy
from rl.policies.elementwise import Elementwise, Function


class Inside(NamedTuple):
    """Tangents inside a layer, None for zero.

    Attributes:
        x, context: dx and dφ, of the layer's inputs.
        a: da.
        gate: (dm, dz) of a gate that learns.
    """

    x: Rows | None
    context: Float[Tensor, "K C"] | None
    a: Rows
    gate: tuple[Rows, Rows] | None


class Flow(NamedTuple):
    """What a forward tangent leaves for the backward one.

    Attributes:
        layers: of each hidden layer.
        hidden: the tangent of the last one's outputs.
        theta: dθ, or None for zero.
    """

    layers: list[Inside]
    hidden: Rows | None
    theta: Params | None


class Linearization:
    """The network linearized on the observations of K tasks.

    Args:
        policy: with a context, its weights shared by all tasks, and `differentiated_by_hand`.
        params: θ.
        context: φ.
        second_order: whether `backward_tangent` will be called.

    Attributes:
        distribution: the policy's output there, outside of any graph.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        params: Params,
        context: Float[Tensor, "K C"],
        observations: Float[Tensor, "K N O"],
        second_order: bool = False,
    ):
        record: dict[str, Tensor] = {}
        with torch.no_grad():
            self.distribution = policy(params, context, observations, record)
            self.layers = []
            inputs = observations
            for index, name in enumerate(policy.layer_names):
                seen = context if index == 0 else None
                self.layers.append(_Layer(policy, params, name, inputs, record, seen, second_order))
                inputs = record[f"{name}.output"]
            self.output = Affine(params, policy.head.output_name(policy.output_name), inputs, None, second_order)

    def forward_tangent(self, tangent: Params | None, d_context: Float[Tensor, "K C"] | None) -> tuple[Rows, Flow]:
        """The tangent of the network's output, and the flow that `backward_tangent` needs.

        Args:
            tangent: dθ, or None for zero.
            d_context: dφ, or None for zero where dθ is not.
        """
        d_inputs: Tensor | None = None
        flow: list[Inside] = []
        for layer in self.layers:
            d_inputs, inside = layer.forward_tangent(tangent, d_inputs, d_context)
            flow.append(inside)
            d_context = None
        return self.output.tangent(tangent, d_inputs, None), Flow(flow, d_inputs, tangent)

    def backward(self, cotangent: Float[Tensor, "K N A"], gradient: Params | None) -> Float[Tensor, "K C"]:
        """∂ℓ/∂φ from ∂ℓ/∂outputs. Of a second-order linearization this can be done once.

        Args:
            gradient: gets ∂ℓ/∂θ added; None where only φ's is wanted.
        """
        cotangent = self.output.backward(cotangent, gradient)
        for layer in reversed(self.layers):
            cotangent = layer.backward(cotangent, gradient)
        return cotangent

    def backward_tangent(
        self, d_cotangent: Float[Tensor, "K N A"], flow: Flow, gradient: Params | None
    ) -> Float[Tensor, "K C"]:
        """d(∂ℓ/∂φ), the tangent of `backward`.

        Args:
            d_cotangent: d(∂ℓ/∂outputs).
            flow: from `forward_tangent`.
            gradient: gets d(∂ℓ/∂θ) added; None where only φ's is wanted.
        """
        d_cotangent = self.output.backward_tangent(d_cotangent, flow.theta, flow.hidden, None, gradient)
        for layer, inside in zip(reversed(self.layers), reversed(flow.layers), strict=True):
            d_cotangent = layer.backward_tangent(d_cotangent, flow.theta, inside, gradient)
        return d_cotangent

    def nbytes(self) -> int:
        """Bytes kept, once `backward` was called where that is kept for second order."""
        kept = [*self.output.kept(), *(value for layer in self.layers for value in layer.kept())]
        return sum({value.data_ptr(): value.numel() * value.element_size() for value in kept}.values())


class _Layer:
    """A hidden layer h = f(a ∘ g(z)): plain (g = 1), or modulated by a gate that is flat (g constant) or learns."""

    def __init__(
        self,
        policy: MLPPolicy,
        params: Params,
        name: str,
        inputs: Rows,
        record: dict[str, Tensor],
        context: Tensor | None,
        second_order: bool,
    ):
        gate = policy.gate
        first, second_over_first = _by_hand(policy.nonlinearity)
        u, h = record[f"{name}.input"], record[f"{name}.output"]
        df_du = first(u, h)
        d2f_duu = second_over_first(u, h) * df_du if second_order and second_over_first else None
        self.second_order = second_order
        self.to_a = Affine(params, f"{name}.std" if gate else name, inputs, context, second_order)
        self.gate: _Gate | None = None
        # The second derivatives are None where they vanish; `backward` multiplies them by h̄.
        self.dh_da, self.d2h_daa = df_du, d2f_duu
        if gate is not None:
            g = record[f"{name}.gates"]
            self.dh_da = df_du * g
            if d2f_duu is not None:
                self.d2h_daa = d2f_duu * g.square()
            if not gate.flat:
                self.gate = _Gate(policy, params, name, inputs, record, context, second_order, (df_du, d2f_duu))

    def forward_tangent(
        self, tangent: Params | None, d_x: Rows | None, d_context: Tensor | None
    ) -> tuple[Rows, Inside]:
        """(dh, tangents inside)"""
        d_a = self.to_a.tangent(tangent, d_x, d_context)
        d_h = self.dh_da * d_a
        if self.gate is None:
            return d_h, Inside(d_x, d_context, d_a, None)
        d_m, d_z = self.gate.forward_tangent(tangent, d_x, d_context)
        return d_h.addcmul_(self.gate.dh_dz, d_z), Inside(d_x, d_context, d_a, (d_m, d_z))

    def backward(self, h_bar: Rows, gradient: Params | None) -> Tensor:
        """x̄ or φ̄ from h̄."""
        result = self.to_a.backward(self.dh_da * h_bar, gradient)
        if self.gate is not None:
            result = self.gate.backward(h_bar, gradient, result)
        if self.second_order and self.d2h_daa is not None:
            self.d2h_daa.mul_(h_bar)
        return result

    def backward_tangent(
        self, d_h_bar: Rows, tangent: Params | None, inside: Inside, gradient: Params | None
    ) -> Tensor:
        """dx̄ or dφ̄ from dh̄; by now the second derivatives hold the factor h̄."""
        d_a_bar = self.dh_da * d_h_bar
        _add_product(d_a_bar, self.d2h_daa, inside.a)
        if self.gate is not None and inside.gate is not None:
            _add_product(d_a_bar, self.gate.d2h_daz, inside.gate[1])
        result = self.to_a.backward_tangent(d_a_bar, tangent, inside.x, inside.context, gradient)
        if self.gate is not None:
            result = self.gate.backward_tangent(d_h_bar, tangent, inside, gradient, result)
        return result

    def kept(self) -> list[Tensor]:
        """The tensors that it keeps."""
        own = [value for value in (self.dh_da, self.d2h_daa) if value is not None]
        return [*own, *self.to_a.kept(), *([] if self.gate is None else self.gate.kept())]


class _Gate:
    """The network of a gate that learns, and the derivatives of h in which z takes part.

    Args:
        of_f: f′ and f″ at u.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        params: Params,
        name: str,
        inputs: Rows,
        record: dict[str, Tensor],
        context: Tensor | None,
        second_order: bool,
        of_f: tuple[Rows, Rows | None],
    ):
        assert policy.gate is not None
        df_du, d2f_duu = of_f
        first, second_over_first = _by_hand(policy.gate)
        a, m, z, g = (record[f"{name}.{part}"] for part in ("preactivation", "modulators", "logits", "gates"))
        # Whether φ is read by the layer, but not by its gate.
        self.blind = context is not None and policy.architecture.nm_without_context
        self.to_n = Affine(params, f"{name}.in_nm", inputs, None if self.blind else context, second_order)
        self.to_z = Affine(params, f"{name}.out_nm", m, None, second_order)
        self.dm_dn = m.sign()
        dg_dz = first(z, g)
        du_dz = a * dg_dz
        self.dh_dz = df_du * du_dz
        self.d2h_daz: Tensor | None = None
        self.d2h_dzz: Tensor | None = None
        if second_order:
            self.d2h_daz = df_du * dg_dz
            if second_over_first:
                self.d2h_dzz = self.dh_dz * second_over_first(z, g)
            if d2f_duu is not None:
                self.d2h_daz += d2f_duu * g * du_dz
                curved = d2f_duu * du_dz.square()
                self.d2h_dzz = curved if self.d2h_dzz is None else self.d2h_dzz + curved

    def forward_tangent(self, tangent: Params | None, d_x: Rows | None, d_context: Tensor | None) -> tuple[Rows, Rows]:
        """(dm, dz)"""
        if self.blind and tangent is None:
            d_m = torch.zeros_like(self.dm_dn)
        else:
            d_m = self.dm_dn * self.to_n.tangent(tangent, d_x, None if self.blind else d_context)
        return d_m, self.to_z.tangent(tangent, d_m, None)

    def backward(self, h_bar: Rows, gradient: Params | None, onto: Tensor) -> Tensor:
        """Its share of x̄ or φ̄, added to `onto`."""
        n_bar = self.to_z.backward(self.dh_dz * h_bar, gradient).mul_(self.dm_dn)
        for derivative in (self.d2h_daz, self.d2h_dzz):
            if derivative is not None:
                derivative.mul_(h_bar)
        if self.blind:
            self.to_n.backward(n_bar, gradient)
            return onto
        return self.to_n.backward(n_bar, gradient, onto)

    def backward_tangent(
        self, d_h_bar: Rows, tangent: Params | None, inside: Inside, gradient: Params | None, onto: Tensor
    ) -> Tensor:
        """Its share of dx̄ or dφ̄, added to `onto`."""
        assert inside.gate is not None
        d_m, d_z = inside.gate
        d_z_bar = self.dh_dz * d_h_bar
        _add_product(d_z_bar, self.d2h_daz, inside.a)
        _add_product(d_z_bar, self.d2h_dzz, d_z)
        d_n_bar = self.to_z.backward_tangent(d_z_bar, tangent, d_m, None, gradient).mul_(self.dm_dn)
        if self.blind:
            self.to_n.backward_tangent(d_n_bar, tangent, inside.x, None, gradient)
            return onto
        return self.to_n.backward_tangent(d_n_bar, tangent, inside.x, inside.context, gradient, onto)

    def kept(self) -> list[Tensor]:
        """The tensors that it keeps."""
        own = [value for value in (self.dm_dn, self.dh_dz, self.d2h_daz, self.d2h_dzz) if value is not None]
        return [*own, *self.to_n.kept(), *self.to_z.kept()]


def _by_hand(function: Elementwise) -> tuple[Function, Function | None]:
    """f′, and f″/f′ or None where that vanishes, of a function that declares them and is not flat."""
    if function.derivatives is None or function.derivatives.first is None:
        raise ValueError("expected a function that declares a derivative other than zero")
    return function.derivatives.first, function.derivatives.second_over_first


def _add_product(total: Rows, derivative: Rows | None, tangent: Rows) -> None:
    """total += derivative ∘ tangent; a derivative of None stands for zero."""
    if derivative is not None:
        total.addcmul_(derivative, tangent)
