"""The exchange on a GPU: three Triton kernels, each used from both sides.

A program owns a tile of one side's tokens (its *rows*) and walks over those of the other (the *columns*). With the
scores in registers and L known, either side may be the rows, so the same source serves

    _gather     compressed rows: A v and L, by online softmax (FlashAttention-2, Dao 2023)
    _apply      compressed rows: A x;              lookup rows: A^T x
    _gradient   compressed rows: gradient of q;    lookup rows: gradients of k and v

with the gradient's pass over the tiles of A shared by both directions of the exchange (see `fused`). No atomics, so
results repeat to the bit. Products take the inputs' dtype and add up in float32; exponentials are to the base 2.
Sizes N and M are free; a head width is padded to the next power of two.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from lookupvivit.kernels import INTERPRETED
from lookupvivit.kernels.fused import row_sums, token_major

LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def _place(count, ROWS: tl.constexpr):
    """A program's rows, and which of the B x H pairs they are of; the tiles of a pair run side by side."""
    tiles = tl.cdiv(count, ROWS)
    program = tl.program_id(0)
    return (program % tiles) * ROWS + tl.arange(0, ROWS), (program // tiles).to(tl.int64)


@triton.jit
def _slice(tensor, strides, heads, pair):
    """Where one head of one sample begins."""
    return tensor + (pair // heads) * strides[0] + (pair % heads) * strides[1]


@triton.jit
def _load(tensor, strides, tokens, count, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Vectors of some tokens, (tokens, BLOCK_D), zero past the last token and the last feature."""
    features = tl.arange(0, BLOCK_D)
    inside = (tokens < count)[:, None] & (features < D)[None, :]
    return tl.load(tensor + tokens[:, None] * strides[2] + features[None, :] * strides[3], mask=inside, other=0.0)


@triton.jit
def _store(tensor, strides, tokens, count, values, D: tl.constexpr, BLOCK_D: tl.constexpr):
    features = tl.arange(0, BLOCK_D)
    inside = (tokens < count)[:, None] & (features < D)[None, :]
    where = tensor + tokens[:, None] * strides[2] + features[None, :] * strides[3]
    tl.store(where, values.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    if PRECISION == "widened":  # the interpreter keeps a bfloat16 as its bits and would multiply those
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _weights(rows, columns, lse, at_columns, scale, LSE_OF_ROWS: tl.constexpr, PRECISION: tl.constexpr):
    """A tile of A, or of its transpose: L belongs to the compressed side. Columns that do not exist weigh nothing."""
    scores = _dot(rows, tl.trans(columns), PRECISION) * (scale * LOG2E)
    shift = (lse[:, None] if LSE_OF_ROWS else lse[None, :]) * LOG2E
    return tl.where(at_columns[None, :], tl.exp2(scores - shift), 0.0)


@triton.jit
def _gather(
    q,
    k,
    v,
    out,
    lse,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    heads,
    m,
    n,
    scale,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows, pair = _place(m, ROWS)
    q, k, v = _slice(q, q_strides, heads, pair), _slice(k, k_strides, heads, pair), _slice(v, v_strides, heads, pair)
    queries = _load(q, q_strides, rows, m, D, BLOCK_D)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    read = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, n, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        keys = _load(k, k_strides, columns, n, D, BLOCK_D)
        scores = _dot(queries, tl.trans(keys), PRECISION) * (scale * LOG2E)
        scores = tl.where((columns < n)[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        values = _load(v, v_strides, columns, n, D, BLOCK_D)
        read = read * shrink[:, None] + _dot(weights.to(values.dtype), values, PRECISION)
        largest = larger
    _store(_slice(out, out_strides, heads, pair), out_strides, rows, m, read / total[:, None], D, BLOCK_D)
    tl.store(lse + pair * m + rows, (largest + tl.log2(total)) / LOG2E, mask=rows < m)


@triton.jit
def _apply(
    r,
    c,
    x,
    lse,
    out,
    r_strides,
    c_strides,
    x_strides,
    out_strides,
    heads,
    row_count,
    column_count,
    scale,
    LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows, pair = _place(row_count, ROWS)
    r, c, x = _slice(r, r_strides, heads, pair), _slice(c, c_strides, heads, pair), _slice(x, x_strides, heads, pair)
    lse += pair * (row_count if LSE_OF_ROWS else column_count)
    own = _load(r, r_strides, rows, row_count, D, BLOCK_D)
    if LSE_OF_ROWS:
        shift = tl.load(lse + rows, mask=rows < row_count, other=float("inf"))
    read = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, column_count, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        there = columns < column_count
        other = _load(c, c_strides, columns, column_count, D, BLOCK_D)
        if not LSE_OF_ROWS:
            shift = tl.load(lse + columns, mask=there, other=float("inf"))
        weights = _weights(own, other, shift, there, scale, LSE_OF_ROWS, PRECISION)
        values = _load(x, x_strides, columns, column_count, D, BLOCK_D)
        read += _dot(weights.to(values.dtype), values, PRECISION)
    _store(_slice(out, out_strides, heads, pair), out_strides, rows, row_count, read, D, BLOCK_D)


@triton.jit
def _gradient(
    r,
    c,
    gr,
    gc,
    ir,
    ic,
    lse,
    row_term,
    d_r,
    d_v,
    r_strides,
    c_strides,
    gr_strides,
    gc_strides,
    ir_strides,
    ic_strides,
    d_r_strides,
    d_v_strides,
    heads,
    row_count,
    column_count,
    scale,
    GATHERED: tl.constexpr,
    INFUSED: tl.constexpr,
    LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """d_s = A * (g v^T + w h^T - r), or its transpose, against the columns.

    gr, gc are g and v (compressed rows) or v and g; ir, ic are w and h, or h and w.
    """
    rows, pair = _place(row_count, ROWS)
    r, c = _slice(r, r_strides, heads, pair), _slice(c, c_strides, heads, pair)
    first = pair * (row_count if LSE_OF_ROWS else column_count)
    own = _load(r, r_strides, rows, row_count, D, BLOCK_D)
    if GATHERED:
        gc = _slice(gc, gc_strides, heads, pair)
        gathered = _load(_slice(gr, gr_strides, heads, pair), gr_strides, rows, row_count, D, BLOCK_D)
    if INFUSED:
        ic = _slice(ic, ic_strides, heads, pair)
        infused = _load(_slice(ir, ir_strides, heads, pair), ir_strides, rows, row_count, D, BLOCK_D)
    if LSE_OF_ROWS:
        shift = tl.load(lse + first + rows, mask=rows < row_count, other=float("inf"))
        mean = tl.load(row_term + first + rows, mask=rows < row_count, other=0.0)[:, None]
    gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    value_gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, column_count, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        there = columns < column_count
        other = _load(c, c_strides, columns, column_count, D, BLOCK_D)
        if not LSE_OF_ROWS:
            shift = tl.load(lse + first + columns, mask=there, other=float("inf"))
            mean = tl.load(row_term + first + columns, mask=there, other=0.0)[None, :]
        weights = _weights(own, other, shift, there, scale, LSE_OF_ROWS, PRECISION)
        d_weights = tl.zeros((ROWS, COLUMNS), tl.float32) - mean
        if GATHERED:
            through = _load(gc, gc_strides, columns, column_count, D, BLOCK_D)
            d_weights += _dot(gathered, tl.trans(through), PRECISION)
            if not LSE_OF_ROWS:
                value_gradient += _dot(weights.to(through.dtype), through, PRECISION)
        if INFUSED:
            through = _load(ic, ic_strides, columns, column_count, D, BLOCK_D)
            d_weights += _dot(infused, tl.trans(through), PRECISION)
        gradient += _dot((weights * d_weights).to(other.dtype), other, PRECISION)
    _store(_slice(d_r, d_r_strides, heads, pair), d_r_strides, rows, row_count, gradient * scale, D, BLOCK_D)
    if GATHERED and not LSE_OF_ROWS:
        _store(_slice(d_v, d_v_strides, heads, pair), d_v_strides, rows, row_count, value_gradient, D, BLOCK_D)


# From Python


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A v (B, H, M, d) and L (B, H, M)."""
    out, lse = token_major(q), row_sums(q)
    sizes = (q.shape[1], q.shape[2], k.shape[2], q.shape[3] ** -0.5)
    _launch(_gather, q, (q, k, v, out, lse, *_strides(q, k, v, out), *sizes))
    return out, lse


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """A v (B, H, M, d) with the L there is."""
    return _applied(q, k, lse, v, token_major(q), True)


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """A^T w (B, H, N, d)."""
    return _applied(k, q, lse, w, token_major(k), False)


def _applied(rows: Tensor, columns: Tensor, lse: Tensor, x: Tensor, out: Tensor, lse_of_rows: bool) -> Tensor:
    sizes = (rows.shape[1], rows.shape[2], columns.shape[2], rows.shape[3] ** -0.5)
    inputs = (rows, columns, x, lse, out, *_strides(rows, columns, x, out), *sizes)
    _launch(_apply, rows, inputs, LSE_OF_ROWS=lse_of_rows)
    return out


def backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of q and k, and of the gathered values where these are given; see `fused.exchange_backward`."""
    v, out, d_out = gathered or (k, q, q)  # never read where there is none
    w, d_w, d_lookup = infused or (q, q, k)
    row_term = torch.zeros_like(lse)
    for gradient, result in ([(d_out, out)] if gathered else []) + ([(w, d_w)] if infused else []):
        row_term += (gradient.float() * result.float()).sum(-1)
    d_q, d_k, d_v = token_major(q), token_major(k), token_major(k)
    heads, m, n, scale = q.shape[1], q.shape[2], k.shape[2], q.shape[3] ** -0.5
    kinds = {"GATHERED": gathered is not None, "INFUSED": infused is not None}
    sides = (
        ((q, k, d_out, v, w, d_lookup), (d_q, d_v), (heads, m, n, scale), True),
        ((k, q, v, d_out, d_lookup, w), (d_k, d_v), (heads, n, m, scale), False),
    )
    for inputs, outputs, sizes, lse_of_rows in sides:
        arguments = (*inputs, lse, row_term, *outputs, *_strides(*inputs, *outputs), *sizes)
        _launch(_gradient, inputs[0], arguments, LSE_OF_ROWS=lse_of_rows, **kinds)
    return d_q, d_k, None if gathered is None else d_v


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tensor.stride() for tensor in tensors]


def tiles(d: int, dtype: torch.dtype) -> dict[str, int]:
    """Sizes a kernel is compiled for, by the bytes of a padded vector.

    Chosen by compiling for compute capabilities 8.0 and 9.0: registers do not spill, and no kernel takes more shared
    memory than the 99 KiB that every GPU since Ampere has.
    """
    block_d = max(16, triton.next_power_of_2(d))
    vector = block_d * dtype.itemsize
    rows, columns, warps = (64, 64, 4) if vector <= 128 else (64, 32, 8) if vector <= 256 else (32, 16, 8)
    return {"D": d, "BLOCK_D": block_d, "ROWS": rows, "COLUMNS": columns, "num_warps": warps, "num_stages": 2}


def _launch(kernel: triton.JITFunction, rows: Tensor, arguments: tuple, **kinds: bool) -> None:
    """Run a kernel over the tiles of ``rows`` (B, H, n, d)."""
    b, h, n, d = rows.shape
    sizes = tiles(d, rows.dtype)
    # Of torch's ways to ask, this one answers for all: the older raises where the newer was used.
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    with torch.cuda.device(rows.device) if rows.is_cuda else contextlib.nullcontext():
        kernel[(triton.cdiv(n, sizes["ROWS"]) * b * h,)](
            *arguments, **kinds, **sizes, PRECISION="widened" if INTERPRETED else precision
        )
