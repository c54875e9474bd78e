"""The exchange on a GPU by the kernels of `triton_kernels`, with the signatures of `lookupvivit.kernels.cpu_flash`."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from lookupvivit.kernels import tuned
from lookupvivit.kernels.buffers import row_sums, token_major
from lookupvivit.kernels.tiles import Tiles, default_tiles, padded_width
from lookupvivit.kernels.triton_kernels import _apply, _gather, _gradient
from lookupvivit.kernels.triton_support import INTERPRETED

DESCRIPTOR_ALIGNMENT = 16  # bytes
# Kernels by what their rows are: a name, its source and constants. L belongs to the compressed tokens, which are the
# rows or, "transposed", the columns.
KERNELS: dict[str, tuple[Any, dict[str, bool]]] = {
    "gather": (_gather, {}),
    "apply": (_apply, {"LSE_OF_ROWS": True}),
    "apply_transposed": (_apply, {"LSE_OF_ROWS": False}),
    "gradient": (_gradient, {"LSE_OF_ROWS": True}),
    "gradient_transposed": (_gradient, {"LSE_OF_ROWS": False}),
}


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d) and L (B, H, M)."""
    out, lse = token_major(q), row_sums(q)
    sizes = (q.shape[1], q.shape[2], k.shape[2], q.shape[3] ** -0.5)
    _launch("gather", q, k, (q, k, v, out, lse, *_strides(q, k, v, out), *sizes))
    return out, lse


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """Return A v (B, H, M, d), computed with the given L."""
    return _applied("apply", q, k, lse, v, token_major(q))


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d)."""
    return _applied("apply_transposed", k, q, lse, w, token_major(k))


def _applied(name: str, rows: Tensor, columns: Tensor, lse: Tensor, x: Tensor, out: Tensor) -> Tensor:
    sizes = (rows.shape[1], rows.shape[2], columns.shape[2], rows.shape[3] ** -0.5)
    arguments = (rows, columns, x, lse, out, *_strides(rows, columns, x, out), *sizes)
    _launch(name, rows, columns, arguments)
    return out


def backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and v; the arguments are those of `cpu_flash.backward`."""
    # A kernel does not read the tensors of an absent direction: any with the right shapes will do.
    v, out, d_out = gathered or (k, q, q)
    w, d_w, d_lookup = infused or (q, q, k)
    row_term = torch.zeros_like(lse)
    if gathered:
        row_term += (d_out.float() * out.float()).sum(-1)
    if infused:
        row_term += (w.float() * d_w.float()).sum(-1)
    d_q, d_k, d_v = token_major(q), token_major(k), token_major(k)
    num_heads, m, n, scale = q.shape[1], q.shape[2], k.shape[2], q.shape[3] ** -0.5
    directions = {"GATHERED": gathered is not None, "INFUSED": infused is not None}
    sides = (
        ("gradient", (q, k, d_out, v, w, d_lookup), (d_q, d_v), (num_heads, m, n, scale)),
        ("gradient_transposed", (k, q, v, d_out, d_lookup, w), (d_k, d_v), (num_heads, n, m, scale)),
    )
    for name, inputs, outputs, sizes in sides:
        arguments = (*inputs, lse, row_term, *outputs, *_strides(*inputs, *outputs), *sizes)
        _launch(name, *inputs[:2], arguments, directions)
    return d_q, d_k, None if gathered is None else d_v


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tensor.stride() for tensor in tensors]


def constants(d: int, tiles: Tiles) -> dict[str, int]:
    """Constants that a kernel is compiled with, for heads of width ``d``."""
    sizes = {"D": d, "BLOCK_D": padded_width(d), "ROWS": tiles.rows, "COLUMNS": tiles.columns}
    return {**sizes, "DESCRIPTORS": tiles.descriptors, "num_warps": tiles.warps, "num_stages": tiles.stages}


def _launch(name: str, rows: Tensor, columns: Tensor, arguments: tuple, flags: dict[str, bool] | None = None) -> None:
    """Run a kernel of `KERNELS` over the tiles of ``rows`` (B, H, n, d); ``flags`` are further constants."""
    b, h, n, d = rows.shape
    tiles = tuned.tiles_for(name, rows, columns) or default_tiles(name, d, rows.dtype)
    if tiles.descriptors and not all(_can_be_described(x) for x in arguments if isinstance(x, Tensor) and x.dim() == 4):
        tiles = replace(tiles, descriptors=False)
    kernel, side = KERNELS[name]
    # `fp32_precision` works whichever API set it; the legacy getter raises after the new setter.
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    if INTERPRETED:
        precision = "widened"
    grid = (triton.cdiv(n, tiles.rows) * b * h,)
    with torch.cuda.device(rows.device) if rows.is_cuda else contextlib.nullcontext():
        launch = partial(kernel[grid], *arguments, **side, **(flags or {}), **constants(d, tiles), PRECISION=precision)
        if tiles.descriptors and not INTERPRETED:
            contextvars.copy_context().run(_launch_with_scratch_memory, launch)
        else:
            launch()


def _can_be_described(x: Tensor) -> bool:
    """Whether a tensor descriptor can read each head of each sample of (B, H, tokens, d)."""
    *strides, last = x.stride()
    offsets = [x.data_ptr(), *(stride * x.element_size() for stride in strides)]
    return last == 1 and not any(offset % DESCRIPTOR_ALIGNMENT for offset in offsets)


def _launch_with_scratch_memory(launch: Callable[[], object]) -> None:
    """A program writes its descriptors to memory that the launcher allocates."""
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
    launch()
