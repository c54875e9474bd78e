"""Multiply-adds and parameters of a model, counted operator by operator from a trace (needs fvcore).

Multiply-adds are those of matrix products, convolutions and attention; element-wise work (norm, GELU, softmax,
residual sum: half a per cent of LookupViT-B on video) is counted apart. Published figures differ by such conventions
and by counting a multiply-add as one or as two; here it is one.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels


class UncountedOperatorError(ValueError):
    """The model runs an operator that is known neither to cost multiply-adds nor to be free of them."""


@dataclass(frozen=True)
class Cost:
    """What one forward pass costs.

    Attributes:
        macs: multiply-adds of the whole pass (not per example).
        elementwise: operations on single elements as XLA's cost analysis counts them (layer norm 5, softmax 4, tanh
            GELU 8, sums and products 1 each), which is what the paper's figures hold besides.
        parameters: scalars in the model, shared ones once.
        by_module: multiply-adds by dotted module name; "" is the whole model.
    """

    macs: int
    elementwise: int
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
            kinds, by_module = analysis.by_operator(), analysis.by_module_and_operator()
    finally:
        for module, mode in training.items():
            module.training = mode
    if unknown := sorted(analysis.unsupported_ops()):
        raise UncountedOperatorError(
            f"cannot count {', '.join(unknown)}: add each to the free operators or to the costs in {__name__}"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    places = {name: f"model.{name}" if name else "model" for name, _ in model.named_modules()}
    names = {name: int(by_module[place]["macs"]) for name, place in places.items()}
    return Cost(int(kinds["macs"]), int(kinds["elementwise"]), parameters, names)


def count_from_shapes(model: nn.Module, input_shape: Iterable[int], **call: Any) -> int:
    """The multiply-adds of `count`, of a model on the meta device: nothing runs, no memory is taken, and it is instant.

    torch's own counter, which knows fewer operators than `count` and skips those it does not know. Of an exchange the
    equations are counted, whatever kernels are chosen.

    Args:
        model, input_shape, call: as for `count`.
    """
    zeros = torch.empty(*input_shape, device="meta")
    # not without gradients: its hooks look for their functions
    with FlopCounterMode(display=False) as counter, kernels.use("reference"):
        model(zeros, **call)
    return counter.get_total_flops() // 2


class _Call(nn.Module):
    """The model with its keyword arguments bound: tracing takes positional tensors only."""

    def __init__(self, model: nn.Module, call: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, video: Tensor) -> Any:
        return self.model(video, **self.call)


def _costs() -> dict[str, Any]:
    from fvcore.nn import jit_handles as fvcore

    def macs(handler: Any) -> Any:
        def total(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
            cost = handler(inputs, outputs)
            return Counter(macs=sum(cost.values()) if isinstance(cost, Counter) else cost)

        return total

    products = {
        "linear": fvcore.linear_flop_jit,
        "addmm": fvcore.addmm_flop_jit,
        "matmul": _product_macs,
        "mm": _product_macs,
        "bmm": _product_macs,
        "einsum": fvcore.einsum_flop_jit,
        "_convolution": fvcore.conv_flop_jit,
    }
    costs = {f"aten::{name}": macs(handler) for name, handler in products.items()}
    costs |= {f"aten::{name}": partial(_per_element, each) for name, each in ELEMENTWISE.items()}
    return {**costs, "aten::scaled_dot_product_attention": _attention}


def _product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """A matrix product; fvcore's own handler forgets the batch of the second factor in (m, n) @ (batch, n, k)."""
    return math.prod(outputs[0].type().sizes()) * inputs[0].type().sizes()[-1]


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Q K^T, A V, scale and softmax; a causal or masked attention counts in full, as if computed densely."""
    q, k, v = (value.type().sizes() for value in inputs[:3])  # (..., M, d), (..., N, d), (..., N, e)
    scores = math.prod(q[:-1]) * k[-2]
    return Counter(macs=scores * (q[-1] + v[-1]), elementwise=ELEMENTWISE["softmax"] * scores + math.prod(q))


def _per_element(each: int, inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(elementwise=each * math.prod(outputs[0].type().sizes() or [1]))


# Operations per element, as XLA's cost analysis has them.
ELEMENTWISE = {
    "add": 1,
    "add_": 1,
    "sub": 1,
    "rsub": 1,
    "mul": 1,
    "mul_": 1,
    "div": 1,
    "div_": 1,
    "layer_norm": 5,
    "softmax": 4,
    "gelu": 8,
}

# Left out: trifles beside the above, or only shapes and copies. fvcore's own list holds shape operators and is in
# force besides.
FREE = tuple(
    f"aten::{name}"
    for name in (
        # element-wise
        "abs",
        "clamp_min",
        "clone",
        "cos",
        "exp",
        "log",
        "maximum",
        "minimum",
        "neg",
        "pow",
        "rsqrt",
        "sigmoid",
        "silu",
        "sin",
        "sqrt",
        "tanh",
        "where",
        # norms, softmax, pooling: a few operations per element
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "avg_pool2d",
        "avg_pool3d",
        "batch_norm",
        "group_norm",
        "linalg_vector_norm",
        "log_softmax",
        "max_pool2d",
        "max_pool3d",
        "mean",
        "std",
        "sum",
        "var",
        # shapes, constants and copies
        "alias",
        "broadcast_tensors",
        "embedding",
        "expand_as",
        "flip",
        "index_select",
        "lift_fresh",
        "lift_fresh_copy",
        "linspace",
        "movedim",
        "numpy_T",
        "ones_like",
        "repeat",
        "repeat_interleave",
        "tile",
        "type_as",
        "unflatten",
        "view_as",
        "zeros_like",
    )
)
