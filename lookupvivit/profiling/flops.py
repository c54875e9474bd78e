"""Multiply-adds and parameters of a model, counted operator by operator from a trace (needs fvcore).

Counted is what matrix products, convolutions and attention multiply and add; element-wise work (norm, GELU,
softmax, residual sum: half a per cent of LookupViT-B on video) is not. Published figures differ by such
conventions and by counting a multiply-add as one or as two; here it is one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class UncountedOperatorError(ValueError):
    """The model runs an operator that is known neither to cost multiply-adds nor to be free of them."""


@dataclass(frozen=True)
class Cost:
    """What one forward pass costs.

    Attributes:
        macs: multiply-adds of the whole pass (not per example).
        parameters: scalars in the model, shared ones once.
        by_module: multiply-adds by dotted module name; "" is the whole model.
    """

    macs: int
    parameters: int
    by_module: dict[str, int] = field(repr=False)


def count(model: nn.Module, input_shape: Iterable[int], **call: Any) -> Cost:
    """Count one forward pass in evaluation mode.

    The pass really runs, on the model's device and in its dtype. Work whose result nobody reads is not counted, as
    a compiler would leave it out.

    Args:
        model: any module of one tensor argument.
        input_shape: shape of that tensor, such as (1, 3, 32, 224, 224).
        call: further keyword arguments of the call, such as ``compressed_size=(8, 9, 9)``.

    Raises:
        UncountedOperatorError: an operator is on neither list below; the message names it.
    """
    with warnings.catch_warnings():  # fvcore uses torch.jit.script as it is imported
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis

    sample = next(model.parameters(), torch.empty(0))
    zeros = torch.zeros(*input_shape, dtype=sample.dtype, device=sample.device)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            # Warnings are off because what they would warn of is an error below.
            analysis = FlopCountAnalysis(_Call(model, call), zeros).unsupported_ops_warnings(False)
            analysis.uncalled_modules_warnings(False).clear_op_handles()
            analysis.set_op_handle(**_costs(), **dict.fromkeys(FREE))
            total, by_module = analysis.total(), analysis.by_module()
    finally:
        for module, mode in training.items():
            module.training = mode
    if unknown := sorted(analysis.unsupported_ops()):
        raise UncountedOperatorError(
            f"cannot count {', '.join(unknown)}: add each to the free operators or to the costs in {__name__}"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    names = {name: int(by_module[f"model.{name}" if name else "model"]) for name, _ in model.named_modules()}
    return Cost(int(total), parameters, names)


class _Call(nn.Module):
    """The model with its keyword arguments bound: tracing takes positional tensors only."""

    def __init__(self, model: nn.Module, call: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, video: Tensor) -> Any:
        return self.model(video, **self.call)


def _costs() -> dict[str, Any]:
    from fvcore.nn import jit_handles as fvcore

    return {
        "aten::linear": fvcore.linear_flop_jit,
        "aten::addmm": fvcore.addmm_flop_jit,
        "aten::matmul": _product_macs,
        "aten::mm": _product_macs,
        "aten::bmm": _product_macs,
        "aten::einsum": fvcore.einsum_flop_jit,
        "aten::_convolution": fvcore.conv_flop_jit,
        "aten::scaled_dot_product_attention": _attention_macs,
    }


def _product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """A matrix product; fvcore's own handler forgets the batch of the second factor in (m, n) @ (batch, n, k)."""
    return math.prod(outputs[0].type().sizes()) * inputs[0].type().sizes()[-1]


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Q K^T and A V; a causal or masked attention counts in full, as if computed densely."""
    q, k, v = (value.type().sizes() for value in inputs[:3])  # (..., M, d), (..., N, d), (..., N, e)
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


# Free of multiply-adds: element-wise, reductions, or only shapes and copies. fvcore's own list holds shape
# operators and is in force besides.
FREE = tuple(
    f"aten::{name}"
    for name in (
        # element-wise
        "abs", "add", "add_", "clamp_min", "clone", "div", "div_", "exp", "gelu", "log", "maximum", "minimum",
        "mul", "mul_", "neg", "pow", "rsqrt", "rsub", "sigmoid", "silu", "sqrt", "sub", "tanh", "where",
        # norms, softmax, pooling: a few operations per element
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool2d", "avg_pool3d",
        "batch_norm", "group_norm", "layer_norm", "linalg_vector_norm", "log_softmax", "max_pool2d",
        "max_pool3d", "mean", "softmax", "std", "sum", "var",
        # shapes, constants and copies
        "alias", "broadcast_tensors", "embedding", "expand_as", "flip", "index_select", "lift_fresh",
        "lift_fresh_copy", "movedim", "numpy_T", "ones_like", "repeat", "repeat_interleave", "tile",
        "type_as", "unflatten", "view_as", "zeros_like",
    )
)  # fmt: skip
