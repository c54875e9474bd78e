"""The exchange without its attention matrix: operators, their gradients and the link between the two.

With the scores s = q k^T / sqrt(d) and L_m = log sum_n exp(s_mn), which a flash-style gather yields by the way, every
weight can be had again as A_mn = exp(s_mn - L_m). The infusion A^T w therefore needs q, k and L only, no second
softmax, and nothing of size M x N is ever kept.

**Gradients.** Write g for the gradient of the gathered A v, and h for that of the infused A^T w. Then

    d_w = A h                                    (a gather of h)
    d_v = A^T g                                  (an infusion of g)
    d_A = g v^T + w h^T
    d_s = A * (d_A - r),   r = rowsum(A * d_A) = rowsum(g * A v) + rowsum(w * A h)

so that the infusion is, to the scores, a second set of values h with the incoming gradient w: one pass over the tiles
of A serves both directions. That pass is the gather's backward, which autograd runs last, as w depends on the gather.
What it needs of the infusion (w, h, d_w) has the shapes of (q, k, q) and reaches it as the gradient of three *link*
tensors, outputs of the gather that the infusion takes and never reads. Nothing is deposited on the side: it holds
under recomputation, repeated backward passes and `torch.compile` because it is nothing but data flow.

A link's gradient is not a derivative, and two of them must not be added: a link serves one infusion. A second one with
the same weights finds no link, and computes its own share of the gradients of q and k.

The operators are opaque to `torch.compile`, and count in `torch.utils.flop_counter` what plain attention counts.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

Link = tuple[Tensor, Tensor, Tensor]


@dataclass
class FusedWeights:
    """The attention of a gather, not written down.

    Attributes:
        q, k: (B, H, M, d), (B, H, N, d) as the gather took them.
        lse: (B, H, M), L above, in at least float32.
        link: see the module; None once an infusion has it.
        engine: the implementation, "cpu" or "triton".
    """

    q: Tensor
    k: Tensor
    lse: Tensor
    link: Link | None
    engine: str


def gather(q: Tensor, k: Tensor, v: Tensor, engine: str) -> tuple[Tensor, FusedWeights]:
    """As :func:`lookupvivit.kernels.gather`, by one implementation."""
    q, k, v = (_autocast(tensor) for tensor in (q, k, v))
    linked = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    out, lse, *link = _gather(q, k, v, engine, linked)
    if not torch.is_grad_enabled():  # weights that were made without gradients carry none later on
        q, k = q.detach(), k.detach()
    return out, FusedWeights(q, k, lse, tuple(link) if linked else None, engine)


def infuse(weights: FusedWeights, w: Tensor) -> Tensor:
    """As :func:`lookupvivit.kernels.infuse`, by the implementation that gathered."""
    link = (None, None, None)
    if torch.is_grad_enabled() and weights.link is not None:
        link, weights.link = weights.link, None
    return _infuse(weights.q, weights.k, weights.lse, w.to(weights.q.dtype), *link, weights.engine)


def _autocast(tensor: Tensor) -> Tensor:
    """What autocast does to the factors of a matrix product; it knows no foreign operators."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _implementation(engine: str) -> ModuleType:
    return importlib.import_module({"cpu": "lookupvivit.kernels.cpu", "triton": "lookupvivit.kernels.triton"}[engine])


def token_major(like: Tensor) -> Tensor:
    """Room for (B, H, n, d), laid out as (B, n, H, d): so that merging the heads again costs no copy."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def row_sums(like: Tensor) -> Tensor:
    """Room for L, (B, H, M)."""
    return like.new_empty(like.shape[:3], dtype=torch.promote_types(like.dtype, torch.float32))


# The operators: what runs, and what it looks like to a compiler.


@custom_op("lookupvivit::gather", mutates_args=())
def _gather(
    q: Tensor, k: Tensor, v: Tensor, engine: str, linked: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A v, L and the link, empty tensors where there is nothing to link."""
    return *_implementation(engine).gather(q, k, v), *_link(q, k, linked)


@_gather.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, engine: str, linked: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return token_major(q), row_sums(q), *_link(q, k, linked)


def _link(q: Tensor, k: Tensor, linked: bool) -> Link:
    # Real tensors: a compiler would bring a gradient into the strides of an expanded zero. They live for one block.
    return tuple(torch.zeros_like(tensor) if linked else q.new_empty(0) for tensor in (q, k, q))


@custom_op("lookupvivit::infuse", mutates_args=())
def _infuse(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    w: Tensor,
    link_w: Tensor | None,
    link_h: Tensor | None,
    link_d_w: Tensor | None,
    engine: str,
) -> Tensor:
    """A^T w."""
    return _implementation(engine).infuse(q, k, lse, w)


@_infuse.register_fake
def _(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    w: Tensor,
    link_w: Tensor | None,
    link_h: Tensor | None,
    link_d_w: Tensor | None,
    engine: str,
) -> Tensor:
    return token_major(k)


@custom_op("lookupvivit::gather_again", mutates_args=())
def _gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor, engine: str) -> Tensor:
    """A v with the L of an earlier gather: the infusion's gradient of w."""
    return _implementation(engine).gather_again(q, k, lse, v)


@_gather_again.register_fake
def _(q: Tensor, k: Tensor, lse: Tensor, v: Tensor, engine: str) -> Tensor:
    return token_major(q)


@custom_op("lookupvivit::exchange_backward", mutates_args=())
def exchange_backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    v: Tensor | None,
    out: Tensor | None,
    d_out: Tensor | None,
    w: Tensor | None,
    d_w: Tensor | None,
    d_lookup: Tensor | None,
    engine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from a gather (v, out = A v, its gradient), an infusion (w, d_w = A h, h), or both.

    Without a gather the third is empty.
    """
    gathered = None if d_out is None else (v, out, d_out)
    infused = None if d_lookup is None else (w, d_w, d_lookup)
    d_q, d_k, d_v = _implementation(engine).backward(q, k, lse, gathered, infused)
    return d_q, d_k, q.new_empty(0) if d_v is None else d_v


@exchange_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    v: Tensor | None,
    out: Tensor | None,
    d_out: Tensor | None,
    w: Tensor | None,
    d_w: Tensor | None,
    d_lookup: Tensor | None,
    engine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return token_major(q), token_major(k), q.new_empty(0) if d_out is None else token_major(k)


# Gradients


def _gather_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, ctx.engine, _ = inputs
    out, lse, *_ = output
    ctx.save_for_backward(q, k, v, out, lse)
    ctx.set_materialize_grads(False)


def _gather_gradient(
    ctx: Any, d_out: Tensor | None, _: None, w: Tensor | None, d_lookup: Tensor | None, d_w: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The last three are what the infusion sent along the link."""
    if d_out is None and d_lookup is None:
        return (None,) * 5
    q, k, v, out, lse = ctx.saved_tensors
    d_q, d_k, d_v = exchange_backward(q, k, lse, v, out, d_out, w, d_w, d_lookup, ctx.engine)
    return d_q, d_k, None if d_out is None else d_v, None, None


def _infuse_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, lse, w, link, *_, ctx.engine = inputs
    ctx.linked = link is not None
    ctx.save_for_backward(q, k, lse, w)
    ctx.set_materialize_grads(False)


def _infuse_gradient(ctx: Any, d_lookup: Tensor | None) -> tuple[Tensor | None, ...]:
    if d_lookup is None:
        return (None,) * 8
    q, k, lse, w = ctx.saved_tensors
    d_w = _gather_again(q, k, lse, d_lookup, ctx.engine)
    if ctx.linked:  # q and k get their share in the gather's backward pass
        return None, None, None, d_w, w, d_lookup, d_w, None
    d_q = d_k = None
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
        d_q, d_k, _ = exchange_backward(q, k, lse, None, None, None, w, d_w, d_lookup, ctx.engine)
    return d_q, d_k, None, d_w, None, None, None, None


_gather.register_autograd(_gather_gradient, setup_context=_gather_context)
_infuse.register_autograd(_infuse_gradient, setup_context=_infuse_context)


# Two FLOPs per multiply-add of the plain exchange; what is computed a second time here is not work the model asks for.


def _products(q: tuple[int, ...], k: tuple[int, ...], count: int) -> int:
    b, h, m, d = q
    return 2 * count * b * h * m * k[2] * d


@register_flop_formula(torch.ops.lookupvivit.gather)
def _(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    return _products(q, k, 2)


@register_flop_formula([torch.ops.lookupvivit.infuse, torch.ops.lookupvivit.gather_again])
def _(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    return _products(q, k, 1)


@register_flop_formula(torch.ops.lookupvivit.exchange_backward)
def _(q: tuple[int, ...], k: tuple[int, ...], *others: Any, **__: Any) -> int:
    _, _, _, d_out, _, _, d_lookup, *_ = others
    return _products(q, k, 2 + 2 * (d_out is not None) + (d_lookup is not None))
