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

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rl.policies import MLPPolicy

Params = dict[str, Tensor]  # as θ
Rows = Float[Tensor, "K _ _"]  # N of them, or one where all are alike
# Of each layer (dx, da, dm, dz, dφ), then the tangents of the last hidden layer and of θ: None for zero.
Flow = tuple[list[tuple[Tensor | None, ...]], Rows | None, Params | None]


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
            self.output = _Affine(params, policy.head.output_name(policy.output_name), inputs, None, second_order)

    def forward_tangent(self, tangent: Params | None, d_context: Float[Tensor, "K C"] | None) -> tuple[Rows, Flow]:
        """The tangent of the network's output, and the flow that `backward_tangent` needs.

        Args:
            tangent: dθ, or None for zero.
            d_context: dφ, or None for zero.
        """
        d_inputs: Tensor | None = None
        flow: list[tuple[Tensor | None, ...]] = []
        for layer in self.layers:
            d_outputs, inside = layer.forward_tangent(tangent, d_inputs, d_context)
            flow.append((d_inputs, *inside))
            d_inputs, d_context = d_outputs, None
        return self.output.tangent(tangent, d_inputs, None), (flow, d_inputs, tangent)

    def backward(self, cotangent: Float[Tensor, "K N A"], gradient: Params | None) -> Float[Tensor, "K C"]:
        """∂ℓ/∂φ from ∂ℓ/∂outputs. Of a second-order linearization this can be done once.

        Args:
            gradient: gets ∂ℓ/∂θ added; None where only φ's is wanted.
        """
        for layer in [self.output, *reversed(self.layers)]:
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
        flows, d_hidden, tangent = flow
        d_cotangent = self.output.backward_tangent(d_cotangent, tangent, d_hidden, None, gradient)
        for layer, inside in zip(reversed(self.layers), reversed(flows), strict=True):
            d_cotangent = layer.backward_tangent(d_cotangent, tangent, inside, gradient)
        return d_cotangent

    def nbytes(self) -> int:
        """Bytes kept."""
        kept = {}
        for layer in [self.output, *self.layers]:
            for value in layer.kept():
                kept[value.data_ptr()] = value.numel() * value.element_size()
        return sum(kept.values())


class _Affine:
    """W [x, φ] + b; its derivatives are named as its parameters. For second order it keeps `backward`'s cotangent."""

    def __init__(self, params: Params, name: str, inputs: Rows, context: Tensor | None, second_order: bool):
        self.name = name
        self.second_order = second_order
        self.cotangent: Tensor | None = None
        self.sums: Tensor | None = None
        self.inputs = inputs
        self.context = context
        self.split = inputs.shape[-1]
        self.weight = params[f"{name}.weight"].detach()

    def tangent(self, tangent: Params | None, d_inputs: Rows | None, d_context: Tensor | None) -> Rows | None:
        """[K, N, out], or [K, 1, out] where only the context has a tangent; None where nothing has."""
        result = common = None
        if tangent is not None:
            d_weight, d_bias = tangent[f"{self.name}.weight"], tangent[f"{self.name}.bias"]
            if self.context is None:
                result = torch.addmm(d_bias, _rows(self.inputs), d_weight.mT)
            else:
                result = _rows(self.inputs) @ d_weight[:, : self.split].mT
                common = torch.addmm(d_bias, self.context, d_weight[:, self.split :].mT)
        if d_context is not None:
            of_context = d_context @ self.weight[:, self.split :].mT
            common = of_context if common is None else common + of_context
        if d_inputs is not None:
            rows = _rows(d_inputs)
            result = rows @ self.weight.mT if result is None else result.addmm_(rows, self.weight.mT)
        if result is None:
            return None if common is None else common[:, None, :]
        result = result.view(*self.inputs.shape[:2], -1)
        return result if common is None else result.add_(common[:, None, :])

    def backward(self, cotangent: Rows, gradient: Params | None, onto: Tensor | None = None) -> Tensor:
        """x̄ [K, N, in], added to `onto` if given; for the layer that reads the context φ̄ [K, C]."""
        sums = cotangent.sum(1) if gradient is not None or self.context is not None else None
        if self.second_order:
            self.cotangent, self.sums = cotangent, sums
        if gradient is not None:
            self._accumulate(gradient, cotangent, sums, self.inputs, self.context)
            gradient[f"{self.name}.bias"].add_(sums.sum(0))
        return self._pull(cotangent, sums, onto)

    def backward_tangent(
        self,
        d_cotangent: Rows,
        tangent: Params | None,
        d_inputs: Rows | None,
        d_context: Tensor | None,
        gradient: Params | None,
        onto: Tensor | None = None,
    ) -> Tensor:
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

    def _accumulate(
        self, gradient: Params, cotangent: Rows, sums: Tensor | None, inputs: Rows | None, context: Tensor | None
    ) -> None:
        """Add cotangentᵀ [x, φ] to the gradient of W, where sums [K, out] are the cotangent's over rows; x or φ None
        stands for zero."""
        weight = gradient[f"{self.name}.weight"]
        if inputs is not None:
            weight[:, : self.split].addmm_(_rows(cotangent).mT, _rows(inputs))
        if context is not None:
            weight[:, self.split :].addmm_(sums.mT, context)

    def _pull(self, cotangent: Rows, sums: Tensor | None, onto: Tensor | None) -> Tensor:
        """cotangent · W, for the inputs or, where there is one, for the context, whose rows are all alike."""
        if self.context is None:
            factors, shape = (_rows(cotangent), self.weight), (*cotangent.shape[:2], -1)
        else:
            factors, shape = (sums, self.weight[:, self.split :]), (len(sums), -1)
        if onto is None:
            return torch.mm(*factors).view(shape)
        onto.view(-1, onto.shape[-1]).addmm_(*factors)
        return onto

    def kept(self) -> list[Tensor]:
        """The tensors that it keeps."""
        return [self.inputs] if self.cotangent is None else [self.inputs, self.cotangent]


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
        gate, f = policy.gate, policy.nonlinearity.derivatives
        u, h, g = (record.get(f"{name}.{part}") for part in ("input", "output", "gates"))
        df_du = f.first(u, h)
        d2f_duu = f.second_over_first(u, h) * df_du if second_order and f.second_over_first else None
        self.learns = gate is not None and not gate.flat
        self.second_order = second_order
        self.to_a = _Affine(params, f"{name}.std" if gate else name, inputs, context, second_order)
        self.dh_da = df_du if gate is None else df_du * g
        # None where they vanish; `backward` multiplies them by h̄.
        self.d2h_daa = self.d2h_daz = self.d2h_dzz = None
        if d2f_duu is not None:
            self.d2h_daa = d2f_duu if gate is None else d2f_duu * g.square()
        if self.learns:
            a, m, z = (record[f"{name}.{part}"] for part in ("preactivation", "modulators", "logits"))
            self.to_n = _Affine(params, f"{name}.in_nm", inputs, context, second_order)
            self.to_z = _Affine(params, f"{name}.out_nm", m, None, second_order)
            self.dm_dn = m.sign()
            dg_dz = gate.derivatives.first(z, g)
            du_dz = a * dg_dz
            self.dh_dz = df_du * du_dz
            if second_order:
                self.d2h_daz = df_du * dg_dz
                if gate.derivatives.second_over_first:
                    self.d2h_dzz = self.dh_dz * gate.derivatives.second_over_first(z, g)
                if d2f_duu is not None:
                    self.d2h_daz += d2f_duu * g * du_dz
                    self.d2h_dzz = _plus(self.d2h_dzz, d2f_duu * du_dz.square())

    def forward_tangent(
        self, tangent: Params | None, d_x: Rows | None, d_context: Tensor | None
    ) -> tuple[Rows, tuple[Tensor | None, ...]]:
        """(dh, (da, dm, dz, dφ))"""
        d_a = self.to_a.tangent(tangent, d_x, d_context)
        d_h = self.dh_da * d_a
        if not self.learns:
            return d_h, (d_a, None, None, d_context)
        d_m = self.dm_dn * self.to_n.tangent(tangent, d_x, d_context)
        d_z = self.to_z.tangent(tangent, d_m, None)
        return d_h.addcmul_(self.dh_dz, d_z), (d_a, d_m, d_z, d_context)

    def backward(self, h_bar: Rows, gradient: Params | None) -> Tensor:
        """x̄ or φ̄ from h̄."""
        result = self.to_a.backward(self.dh_da * h_bar, gradient)
        if self.learns:
            n_bar = self.to_z.backward(self.dh_dz * h_bar, gradient).mul_(self.dm_dn)
            result = self.to_n.backward(n_bar, gradient, onto=result)
        if self.second_order:
            for derivative in (self.d2h_daa, self.d2h_daz, self.d2h_dzz):
                if derivative is not None:
                    derivative.mul_(h_bar)
        return result

    def backward_tangent(
        self, d_h_bar: Rows, tangent: Params | None, flow: tuple[Tensor | None, ...], gradient: Params | None
    ) -> Tensor:
        """dx̄ or dφ̄ from dh̄; by now the second derivatives hold the factor h̄."""
        d_x, d_a, d_m, d_z, d_context = flow
        d_a_bar = self.dh_da * d_h_bar
        if self.d2h_daa is not None:
            d_a_bar.addcmul_(self.d2h_daa, d_a)
        if self.learns:
            d_a_bar.addcmul_(self.d2h_daz, d_z)
        result = self.to_a.backward_tangent(d_a_bar, tangent, d_x, d_context, gradient)
        if self.learns:
            d_z_bar = self.dh_dz * d_h_bar
            d_z_bar.addcmul_(self.d2h_daz, d_a)
            if self.d2h_dzz is not None:
                d_z_bar.addcmul_(self.d2h_dzz, d_z)
            d_n_bar = self.to_z.backward_tangent(d_z_bar, tangent, d_m, None, gradient).mul_(self.dm_dn)
            result = self.to_n.backward_tangent(d_n_bar, tangent, d_x, d_context, gradient, onto=result)
        return result

    def kept(self) -> list[Tensor]:
        """The tensors that it keeps."""
        return [value for value in _tensors(vars(self).values()) if value.dim() == 3]


def _plus(left: Tensor | None, right: Tensor) -> Tensor:
    """left + right, None standing for zero."""
    return right if left is None else left + right


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)
        elif isinstance(value, _Affine):
            yield from value.kept()


def _rows(values: Float[Tensor, "K N X"]) -> Float[Tensor, "K*N X"]:
    """All tasks' rows in one matrix."""
    return values.flatten(0, 1)
