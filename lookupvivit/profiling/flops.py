"""Multiply-adds and parameters of a model, counted with fvcore from a trace of one forward pass.

Multiply-adds are those of matrix products, convolutions and attention. Element-wise operations (layer norm, GELU,
softmax, residual sums: about 0.5 % of LookupViT-B on video) are counted separately. Published figures differ in these
conventions and in whether a multiply-add counts as one or two operations; here it counts as one.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# DeepSpeed replaces torch.nn.functional.linear by this function in processes that use ZeRO-3.
ZERO3_LINEAR = "prim::PythonOp.LinearFunctionForZeroStage3"
Handler = Callable[[list[Any], list[Any]], Any]  # inputs and outputs of a traced operator -> its cost


class UncountedOperatorError(ValueError):
    """The model uses an operator that is listed neither with a cost nor as free."""


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass of a whole batch.

    Attributes:
        macs: multiply-adds.
        elementwise: operations on single elements, as XLA's cost analysis counts them (layer norm 5, softmax 4, tanh
            GELU 8, sums and products 1 each). The paper's figures include them.
        parameters: number of scalars in the model; shared parameters count once.
        by_module: multiply-adds by dotted module name; "" is the whole model.
    """

    macs: int
    elementwise: int
    parameters: int
    by_module: dict[str, int] = field(repr=False)


def count_cost(model: nn.Module, input_shape: Iterable[int], **call: Any) -> Cost:
    """Count one forward pass in evaluation mode.

    The pass runs on the model's device and in its dtype. On the meta device it takes neither time nor memory, except
    for models with convolutions, which run on the CPU. The plain attention of the equations is counted, whichever of
    `lookupvivit.kernels` is chosen. Operations whose result is never used do not count, as a compiler would remove
    them.

    Args:
        model: any module with one tensor argument.
        input_shape: shape of that tensor, such as (1, 3, 32, 224, 224).
        call: further keyword arguments of the call, such as ``compressed_size=(8, 9, 9)``.

    Raises:
        UncountedOperatorError: an operator is listed neither with a cost nor as free; the message names it.
    """
    shape = tuple(input_shape)
    try:
        return _count(model, shape, call)
    except TypeError:
        if not _is_on_meta(model):
            raise
        # torch cannot trace convolutions on the meta device. Any other error repeats on the CPU.
        return _count(_zeros_on_cpu(model), shape, call)


def _count(model: nn.Module, input_shape: tuple[int, ...], call: dict[str, Any]) -> Cost:
    with warnings.catch_warnings():  # importing fvcore calls the deprecated torch.jit.script
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis

    weight = next(model.parameters(), torch.empty(0))
    zeros = torch.zeros(input_shape, dtype=weight.dtype, device=weight.device)
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            # fvcore's warnings are off because every unsupported operator raises below.
            analysis = FlopCountAnalysis(_BoundCall(model, call), zeros).unsupported_ops_warnings(False)
            analysis.uncalled_modules_warnings(False).clear_op_handles()
            analysis.set_op_handle(**_cost_handlers(), **dict.fromkeys(FREE))
            total, by_module = analysis.by_operator(), analysis.by_module_and_operator()
    finally:
        for module, training in was_training.items():
            module.training = training
    if unknown := sorted(analysis.unsupported_ops()):
        raise UncountedOperatorError(
            f"{type(model).__name__}: found {', '.join(unknown)}, whose cost is unknown; "
            f"add each operator to the free ones or to those with a cost in {__name__}"
        )
    traced_names = {name: f"model.{name}" if name else "model" for name, _ in model.named_modules()}
    return Cost(
        macs=int(total["macs"]),
        elementwise=int(total["elementwise"]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        by_module={name: int(by_module[traced]["macs"]) for name, traced in traced_names.items()},
    )


class _BoundCall(nn.Module):
    """The model with its keyword arguments bound: tracing passes positional tensors only."""

    def __init__(self, model: nn.Module, call: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, video: Tensor) -> Any:
        return self.model(video, **self.call)


def _is_on_meta(model: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in model.parameters())


def _zeros_on_cpu(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()  # buffers may hold indices, which must be valid
    return twin


def _cost_handlers() -> dict[str, Handler]:
    """fvcore's handlers by operator, each returning a Counter of "macs" and "elementwise"."""
    from fvcore.nn import jit_handles as fvcore

    products: dict[str, Handler] = {
        "linear": fvcore.linear_flop_jit,
        "addmm": fvcore.addmm_flop_jit,
        "matmul": _product_macs,
        "mm": _product_macs,
        "bmm": _product_macs,
        "einsum": fvcore.einsum_flop_jit,
        "_convolution": fvcore.conv_flop_jit,
    }
    handlers: dict[str, Handler] = {f"aten::{name}": partial(_macs, handler) for name, handler in products.items()}
    for name, operations in ELEMENTWISE.items():
        handlers[f"aten::{name}"] = partial(_elementwise, operations)
    handlers["aten::scaled_dot_product_attention"] = _attention
    handlers[ZERO3_LINEAR] = handlers["aten::linear"]
    return handlers


def _macs(handler: Handler, inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """The result of a handler of fvcore, a number or a Counter by operator, as multiply-adds."""
    cost = handler(inputs, outputs)
    return Counter(macs=sum(cost.values()) if isinstance(cost, Counter) else cost)


def _product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """A matrix product. fvcore's own handler ignores the batch of the second factor in (m, n) @ (batch, n, k)."""
    return math.prod(outputs[0].type().sizes()) * inputs[0].type().sizes()[-1]


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Q K^T, A V, scaling and softmax. Causal or masked attention counts in full, as if computed densely."""
    q, k, v = (value.type().sizes() for value in inputs[:3])  # (..., M, d), (..., N, d), (..., N, e)
    scores = math.prod(q[:-1]) * k[-2]
    return Counter(macs=scores * (q[-1] + v[-1]), elementwise=ELEMENTWISE["softmax"] * scores + math.prod(q))


def _elementwise(operations: int, inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(elementwise=operations * math.prod(outputs[0].type().sizes() or [1]))


# Operations per element, as XLA's cost analysis counts them.
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

_FREE_ELEMENTWISE = """
    abs ceil clamp_min clone copy_ cos cumsum exp floor gt log max maximum minimum neg pow rsqrt sigmoid silu sin sqrt
    tanh where
"""
_FREE_NORMS_POOLING_AND_RESIZING = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool2d avg_pool3d batch_norm group_norm
    linalg_vector_norm log_softmax max_pool2d max_pool3d mean std sum var
    upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa
"""
_FREE_SHAPES_CONSTANTS_AND_COPIES = """
    alias broadcast_tensors col2im embedding expand_as flip full_like gather im2col index_select lift_fresh
    lift_fresh_copy linspace meshgrid movedim mT new_ones new_zeros numpy_T ones_like pad rand repeat
    repeat_interleave reshape_as scatter scatter_add sort tile topk type_as unflatten view_as zeros_like
"""
# Operators that do not count: a few operations per element at most, and rare. fvcore itself ignores more shape
# operators.
FREE = tuple(
    f"aten::{name}"
    for names in (_FREE_ELEMENTWISE, _FREE_NORMS_POOLING_AND_RESIZING, _FREE_SHAPES_CONSTANTS_AND_COPIES)
    for name in names.split()
)
