"""The exchange without its attention matrix: custom operators, their gradients, and the link between the two.

With scores s = q k^T / sqrt(d) and L_m = log sum_n exp(s_mn), which a flash-attention gather computes anyway, every
attention weight can be recomputed as A_mn = exp(s_mn - L_m). The infusion A^T w therefore needs only q, k and L, no
second softmax, and no tensor of size M x N is ever stored. On the CPU, in single precision, a matrix product with A
costs less than computing it: there, the gather returns A in place of L, and it is freed after the infusion.

**Gradients.** Let g be the gradient of the gathered A v, and h that of the infused A^T w. Then

    d_w = A h                                    (a gather of h)
    d_v = A^T g                                  (an infusion of g)
    d_A = g v^T + w h^T
    d_s = A * (d_A - r),   r = rowsum(A * d_A) = rowsum(g * A v) + rowsum(w * A h)

For the scores, the infusion is a second set of values h with incoming gradient w. One pass over the tiles of A
therefore serves both directions. It runs in the backward pass of the gather, which autograd calls last, because w
depends on the gather.

**Link.** That pass needs w, h and d_w of the infusion, whose shapes are those of q, k and q. They arrive as the
gradients of three *link* tensors: the gather returns them and the infusion takes them as inputs that it never reads. As
this is plain data flow without side effects, it works under activation checkpointing, repeated backward passes and
`torch.compile`.

The gradient of a link is not a derivative, and autograd must not add two of them: a link serves one infusion. A second
infusion with the same weights gets no link and computes its own share of the gradients of q and k.

The operators are opaque to `torch.compile`. `torch.utils.flop_counter` counts for them what plain attention counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from lookupvivit.kernels import chunked, cpu_flash, measured
from lookupvivit.kernels.buffers import row_sums, token_major

Link = tuple[Tensor, Tensor, Tensor]


@dataclass
class FusedWeights:
    """The attention of a gather in the form that an infusion recomputes it from.

    Attributes:
        q, k: (B, H, M, d), (B, H, N, d), the inputs of the gather.
        state: L (B, H, M), in at least float32; or the second result of `chunked.gather`.
        link: three tensors described in the module docstring; None after the first infusion.
        implementation: "cpu", "triton" or "measured".
    """

    q: Tensor
    k: Tensor
    state: Tensor
    link: Link | None
    implementation: str


def gather(q: Tensor, k: Tensor, v: Tensor, implementation: str) -> tuple[Tensor, FusedWeights]:
    """Run :func:`lookupvivit.kernels.gather` with the given implementation."""
    q, k, v = (_cast_for_autocast(tensor) for tensor in (q, k, v))
    linked = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    out, state, *link = _gather(q, k, v, implementation, linked)
    if not torch.is_grad_enabled():  # a later infusion with gradients must not reach q and k through these weights
        q, k = q.detach(), k.detach()
    return out, FusedWeights(q, k, state, tuple(link) if linked else None, implementation)


def infuse(weights: FusedWeights, w: Tensor) -> Tensor:
    """Run :func:`lookupvivit.kernels.infuse` with the implementation of the gather."""
    link: Link | tuple[None, None, None] = (None, None, None)
    if torch.is_grad_enabled() and weights.link is not None:
        link, weights.link = weights.link, None
    return _infuse(weights.q, weights.k, weights.state, w.to(weights.q.dtype), *link, weights.implementation)


def _cast_for_autocast(tensor: Tensor) -> Tensor:
    """Cast as autocast casts the factors of a matrix product: it does not handle custom operators."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _module(implementation: str, q: Tensor) -> ModuleType:
    if implementation == "triton":
        from lookupvivit.kernels import triton  # imports Triton, which is not installed everywhere

        return triton
    if implementation == "measured":
        return measured
    return cpu_flash if q.dtype.itemsize < 4 else chunked


# Operators: what they compute, and (register_fake) the shapes and strides of their results for a compiler


@custom_op("lookupvivit::gather", mutates_args=())
def _gather(
    q: Tensor, k: Tensor, v: Tensor, implementation: str, linked: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A v, the state of `FusedWeights`, and the three link tensors, which are empty unless ``linked``."""
    return *_module(implementation, q).gather(q, k, v), *_link(q, k, linked)


@_gather.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, implementation: str, linked: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    is_chunked = _module(implementation, q) is chunked
    state = q.new_empty(chunked.kept_shape(q, k)) if is_chunked else row_sums(q)
    return token_major(q), state, *_link(q, k, linked)


def _link(q: Tensor, k: Tensor, linked: bool) -> Link:
    # Dense zeros, although they are never read: a compiler would copy a gradient into the strides of an expanded zero.
    # They live until the block ends.
    if not linked:
        return q.new_empty(0), q.new_empty(0), q.new_empty(0)
    return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(q)


@custom_op("lookupvivit::infuse", mutates_args=())
def _infuse(
    q: Tensor,
    k: Tensor,
    state: Tensor,
    w: Tensor,
    link_w: Tensor | None,
    link_h: Tensor | None,
    link_d_w: Tensor | None,
    implementation: str,
) -> Tensor:
    """A^T w; the link tensors are not read."""
    return _module(implementation, q).infuse(q, k, state, w)


@_infuse.register_fake
def _(
    q: Tensor,
    k: Tensor,
    state: Tensor,
    w: Tensor,
    link_w: Tensor | None,
    link_h: Tensor | None,
    link_d_w: Tensor | None,
    implementation: str,
) -> Tensor:
    return token_major(k)


@custom_op("lookupvivit::gather_again", mutates_args=())
def _gather_again(q: Tensor, k: Tensor, lse: Tensor | None, v: Tensor, implementation: str) -> Tensor:
    """A v with the L of an earlier gather; computes the gradient of an infusion's w."""
    return _module(implementation, q).gather_again(q, k, lse, v)


@_gather_again.register_fake
def _(q: Tensor, k: Tensor, lse: Tensor | None, v: Tensor, implementation: str) -> Tensor:
    return token_major(q)


@custom_op("lookupvivit::exchange_backward", mutates_args=())
def exchange_backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor | None,
    v: Tensor | None,
    out: Tensor | None,
    d_out: Tensor | None,
    w: Tensor | None,
    d_w: Tensor | None,
    d_lookup: Tensor | None,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from a gather, an infusion, or both.

    Args:
        q, k, lse: of both; without L, if the implementation does not use it.
        v, out, d_out: values, result A v and its gradient g of the gather; None without a gather.
        w, d_w, d_lookup: values, their gradient A h and the gradient h of the result of the infusion; None without one.

    Returns:
        d_q, d_k and d_v, which is empty without a gather.
    """
    gathered = None if d_out is None else (v, out, d_out)
    infused = None if d_lookup is None else (w, d_w, d_lookup)
    d_q, d_k, d_v = _module(implementation, q).backward(q, k, lse, gathered, infused)
    return d_q, d_k, q.new_empty(0) if d_v is None else d_v


@exchange_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    lse: Tensor | None,
    v: Tensor | None,
    out: Tensor | None,
    d_out: Tensor | None,
    w: Tensor | None,
    d_w: Tensor | None,
    d_lookup: Tensor | None,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return token_major(q), token_major(k), q.new_empty(0) if d_out is None else token_major(k)


# Gradients


def _lse(state: Tensor) -> Tensor | None:
    """The part of the state that is kept for the backward pass, which computes A again."""
    return state if state.ndim == 3 else None


def _save_gather(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, ctx.implementation, _ = inputs
    out, state, *_ = output
    ctx.save_for_backward(q, k, v, out, _lse(state))
    ctx.set_materialize_grads(False)


def _gather_gradient(
    ctx: Any, d_out: Tensor | None, _: None, w: Tensor | None, d_lookup: Tensor | None, d_w: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The last three arguments are the "gradients" of the link, which the infusion sent."""
    if d_out is None and d_lookup is None:
        return (None,) * 5
    q, k, v, out, lse = ctx.saved_tensors
    d_q, d_k, d_v = exchange_backward(q, k, lse, v, out, d_out, w, d_w, d_lookup, ctx.implementation)
    return d_q, d_k, None if d_out is None else d_v, None, None


def _save_infuse(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, state, w, link_w, *_, ctx.implementation = inputs
    ctx.linked = link_w is not None
    ctx.save_for_backward(q, k, _lse(state), w)
    ctx.set_materialize_grads(False)


def _infuse_gradient(ctx: Any, d_lookup: Tensor | None) -> tuple[Tensor | None, ...]:
    if d_lookup is None:
        return (None,) * 8
    q, k, lse, w = ctx.saved_tensors
    d_w = _gather_again(q, k, lse, d_lookup, ctx.implementation)
    if ctx.linked:  # the backward pass of the gather adds this infusion's share of d_q and d_k
        return None, None, None, d_w, w, d_lookup, d_w, None
    d_q = d_k = None
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
        d_q, d_k, _ = exchange_backward(q, k, lse, None, None, None, w, d_w, d_lookup, ctx.implementation)
    return d_q, d_k, None, d_w, None, None, None, None


_gather.register_autograd(_gather_gradient, setup_context=_save_gather)
_infuse.register_autograd(_infuse_gradient, setup_context=_save_infuse)


# FLOPs as torch counts them, two per multiply-add. Recomputed weights do not count: the plain exchange, whose FLOPs
# these are, computes them once.


def _flops(q: tuple[int, ...], k: tuple[int, ...], products: int) -> int:
    """FLOPs of matrix products of H heads that have M, N and d as their three sizes."""
    b, h, m, d = q
    return 2 * products * b * h * m * k[2] * d


@register_flop_formula(torch.ops.lookupvivit.gather)
def _(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    return _flops(q, k, 2)


@register_flop_formula([torch.ops.lookupvivit.infuse, torch.ops.lookupvivit.gather_again])
def _(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    return _flops(q, k, 1)


@register_flop_formula(torch.ops.lookupvivit.exchange_backward)
def _(q: tuple[int, ...], k: tuple[int, ...], *others: Any, **__: Any) -> int:
    _, _, _, d_out, _, _, d_lookup, *_ = others
    return _flops(q, k, 2 + 2 * (d_out is not None) + (d_lookup is not None))
