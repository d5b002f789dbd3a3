"""W [x, φ] + b and its derivatives, of which `rl.algorithm.linearization` makes layers."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

Params = dict[str, Tensor]  # as θ
Rows = Float[Tensor, "K _ _"]  # N of them, or one where all are alike


class Cotangent:
    """c̄ at the outputs of W [x, φ] + b, and its sums over rows, taken where they are needed."""

    def __init__(self, rows: Rows):
        self.rows = rows

    @functools.cached_property
    def sums(self) -> Float[Tensor, "K _"]:
        return self.rows.sum(1)


class Affine:
    """W [x, φ] + b; its derivatives are named as its parameters."""

    cotangent: Cotangent  # of `backward`, kept for second order

    def __init__(self, params: Params, name: str, inputs: Rows, context: Tensor | None, second_order: bool):
        self.name = name
        self.second_order = second_order
        self.inputs = inputs
        self.context = context
        self.split = inputs.shape[-1]
        self.weight = params[f"{name}.weight"].detach()

    def tangent(self, tangent: Params | None, d_inputs: Rows | None, d_context: Tensor | None) -> Rows:
        """[K, N, out], or [K, 1, out] where only the context has a tangent."""
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
            if common is None:
                raise ValueError(f"{self.name}: expected a tangent of θ, of φ or of the inputs")
            return common[:, None, :]
        result = result.view(*self.inputs.shape[:2], -1)
        return result if common is None else result.add_(common[:, None, :])

    def backward(self, cotangent: Rows, gradient: Params | None, onto: Tensor | None = None) -> Tensor:
        """x̄ [K, N, in], added to `onto` if given; for the layer that reads the context φ̄ [K, C]."""
        given = Cotangent(cotangent)
        if self.second_order:
            self.cotangent = given
        if gradient is not None:
            self._accumulate(gradient, given, self.inputs, self.context)
            gradient[f"{self.name}.bias"].add_(given.sums.sum(0))
        return self._pull(given, onto)

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
        given = Cotangent(d_cotangent)
        if gradient is not None:
            self._accumulate(gradient, given, self.inputs, self.context)
            self._accumulate(gradient, self.cotangent, d_inputs, d_context)
            gradient[f"{self.name}.bias"].add_(given.sums.sum(0))
        result = self._pull(given, onto)
        if tangent is not None:
            d_weight = tangent[f"{self.name}.weight"]
            if self.context is None:
                _rows(result).addmm_(_rows(self.cotangent.rows), d_weight)
            else:
                result.addmm_(self.cotangent.sums, d_weight[:, self.split :])
        return result

    def _accumulate(self, gradient: Params, cotangent: Cotangent, inputs: Rows | None, context: Tensor | None) -> None:
        """Add cotangentᵀ [x, φ] to the gradient of W; x or φ None stands for zero."""
        weight = gradient[f"{self.name}.weight"]
        if inputs is not None:
            weight[:, : self.split].addmm_(_rows(cotangent.rows).mT, _rows(inputs))
        if context is not None:
            weight[:, self.split :].addmm_(cotangent.sums.mT, context)

    def _pull(self, cotangent: Cotangent, onto: Tensor | None) -> Tensor:
        """cotangent · W, for the inputs or, where there is one, for the context, whose rows are all alike."""
        if self.context is None:
            factors, shape = (_rows(cotangent.rows), self.weight), (*cotangent.rows.shape[:2], -1)
        else:
            factors, shape = (cotangent.sums, self.weight[:, self.split :]), (len(cotangent.rows), -1)
        if onto is None:
            return torch.mm(*factors).view(shape)
        onto.view(-1, onto.shape[-1]).addmm_(*factors)
        return onto

    def kept(self) -> list[Tensor]:
        """The tensors that it keeps."""
        return [self.inputs, self.cotangent.rows] if self.second_order else [self.inputs]


def _rows(values: Float[Tensor, "K N X"]) -> Float[Tensor, "K*N X"]:
    """All tasks' rows in one matrix."""
    return values.flatten(0, 1)
