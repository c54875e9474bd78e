"""The exchange on a GPU: three Triton kernels, each used for both sides.

A program owns a tile of tokens of one side (its *rows*) and iterates over the tokens of the other side (the *columns*).
It recomputes a tile of A from the scores, in registers, and L. As either side can be the rows, the same source serves

    _gather     compressed rows: A v and L, by online softmax (FlashAttention-2, Dao 2023)
    _apply      compressed rows: A x;              lookup rows: A^T x
    _gradient   compressed rows: gradient of q;    lookup rows: gradients of k and v

One pass of `_gradient` over the tiles of A serves both directions of the exchange (see `fused`). The kernels use no
atomics, so that results are reproducible to the bit. Matrix products take the dtype of the inputs and accumulate in
float32; exponentials are to the base 2. N and M are arbitrary; a head width is padded to the next power of two.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from lookupvivit.kernels.buffers import row_sums, token_major
from lookupvivit.kernels.triton_support import INTERPRETED

LOG2E = tl.constexpr(math.log2(math.e))


# Kernels. Tensors are (B, H, tokens, d) with any strides; a pair is a (sample, head).


@triton.jit
def _program_rows(count, ROWS: tl.constexpr):
    """This program's rows and pair; programs of the same pair are neighbours."""
    tiles = tl.cdiv(count, ROWS)
    program = tl.program_id(0)
    return (program % tiles) * ROWS + tl.arange(0, ROWS), (program // tiles).to(tl.int64)


@triton.jit
def _at_pair(tensor, strides, num_heads, pair):
    """Pointer to the first element of one head of one sample."""
    return tensor + (pair // num_heads) * strides[0] + (pair % num_heads) * strides[1]


@triton.jit
def _load(tensor, strides, tokens, count, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Load (tokens, BLOCK_D), with zeros behind the last token and the last feature."""
    features = tl.arange(0, BLOCK_D)
    inside = (tokens < count)[:, None] & (features < D)[None, :]
    return tl.load(tensor + tokens[:, None] * strides[2] + features[None, :] * strides[3], mask=inside, other=0.0)


@triton.jit
def _store(tensor, strides, tokens, count, values, D: tl.constexpr, BLOCK_D: tl.constexpr):
    features = tl.arange(0, BLOCK_D)
    inside = (tokens < count)[:, None] & (features < D)[None, :]
    pointers = tensor + tokens[:, None] * strides[2] + features[None, :] * strides[3]
    tl.store(pointers, values.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    if PRECISION == "widened":  # the interpreter stores bfloat16 as integers and would multiply those
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _weights(rows, columns, lse, valid_columns, scale, LSE_OF_ROWS: tl.constexpr, PRECISION: tl.constexpr):
    """A tile of A (LSE_OF_ROWS) or of its transpose: L belongs to the compressed side. Invalid columns get weight 0."""
    scores = _dot(rows, tl.trans(columns), PRECISION) * (scale * LOG2E)
    shift = (lse[:, None] if LSE_OF_ROWS else lse[None, :]) * LOG2E
    return tl.where(valid_columns[None, :], tl.exp2(scores - shift), 0.0)


@triton.jit
def _gather(
    q, k, v, out, lse,
    q_strides, k_strides, v_strides, out_strides,
    num_heads, m, n, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = A v, and L: the rows are compressed tokens, the columns lookup tokens."""
    rows, pair = _program_rows(m, ROWS)
    q, k = _at_pair(q, q_strides, num_heads, pair), _at_pair(k, k_strides, num_heads, pair)
    v = _at_pair(v, v_strides, num_heads, pair)
    queries = _load(q, q_strides, rows, m, D, BLOCK_D)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, BLOCK_D), tl.float32)
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
        result = result * shrink[:, None] + _dot(weights.to(values.dtype), values, PRECISION)
        largest = larger
    _store(_at_pair(out, out_strides, num_heads, pair), out_strides, rows, m, result / total[:, None], D, BLOCK_D)
    tl.store(lse + pair * m + rows, (largest + tl.log2(total)) / LOG2E, mask=rows < m)


@triton.jit
def _apply(
    r, c, x, lse, out,
    r_strides, c_strides, x_strides, out_strides,
    num_heads, row_count, column_count, scale,
    LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = A x with r = q, c = k (LSE_OF_ROWS), or A^T x with r = k, c = q; x belongs to the columns."""
    rows, pair = _program_rows(row_count, ROWS)
    r, c = _at_pair(r, r_strides, num_heads, pair), _at_pair(c, c_strides, num_heads, pair)
    x = _at_pair(x, x_strides, num_heads, pair)
    lse += pair * (row_count if LSE_OF_ROWS else column_count)
    row_tokens = _load(r, r_strides, rows, row_count, D, BLOCK_D)
    if LSE_OF_ROWS:
        shift = tl.load(lse + rows, mask=rows < row_count, other=float("inf"))
    result = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, column_count, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        valid = columns < column_count
        column_tokens = _load(c, c_strides, columns, column_count, D, BLOCK_D)
        if not LSE_OF_ROWS:
            shift = tl.load(lse + columns, mask=valid, other=float("inf"))
        weights = _weights(row_tokens, column_tokens, shift, valid, scale, LSE_OF_ROWS, PRECISION)
        values = _load(x, x_strides, columns, column_count, D, BLOCK_D)
        result += _dot(weights.to(values.dtype), values, PRECISION)
    _store(_at_pair(out, out_strides, num_heads, pair), out_strides, rows, row_count, result, D, BLOCK_D)


@triton.jit
def _gradient(
    r, c, gr, gc, ir, ic, lse, row_term, d_r, d_v,
    r_strides, c_strides, gr_strides, gc_strides, ir_strides, ic_strides, d_r_strides, d_v_strides,
    num_heads, row_count, column_count, scale,
    GATHERED: tl.constexpr, INFUSED: tl.constexpr, LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_r = d_s c with d_s = A * (g v^T + w h^T - row_term), or its transpose if the rows are lookup tokens.

    (gr, gc) are (g, v) if the rows are compressed tokens, else (v, g); (ir, ic) are (w, h), else (h, w).
    """
    rows, pair = _program_rows(row_count, ROWS)
    r, c = _at_pair(r, r_strides, num_heads, pair), _at_pair(c, c_strides, num_heads, pair)
    first = pair * (row_count if LSE_OF_ROWS else column_count)
    row_tokens = _load(r, r_strides, rows, row_count, D, BLOCK_D)
    if GATHERED:
        gc = _at_pair(gc, gc_strides, num_heads, pair)
        row_gathered = _load(_at_pair(gr, gr_strides, num_heads, pair), gr_strides, rows, row_count, D, BLOCK_D)
    if INFUSED:
        ic = _at_pair(ic, ic_strides, num_heads, pair)
        row_infused = _load(_at_pair(ir, ir_strides, num_heads, pair), ir_strides, rows, row_count, D, BLOCK_D)
    if LSE_OF_ROWS:
        shift = tl.load(lse + first + rows, mask=rows < row_count, other=float("inf"))
        term = tl.load(row_term + first + rows, mask=rows < row_count, other=0.0)[:, None]
    gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    value_gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, column_count, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        valid = columns < column_count
        column_tokens = _load(c, c_strides, columns, column_count, D, BLOCK_D)
        if not LSE_OF_ROWS:
            shift = tl.load(lse + first + columns, mask=valid, other=float("inf"))
            term = tl.load(row_term + first + columns, mask=valid, other=0.0)[None, :]
        weights = _weights(row_tokens, column_tokens, shift, valid, scale, LSE_OF_ROWS, PRECISION)
        d_weights = tl.zeros((ROWS, COLUMNS), tl.float32) - term
        if GATHERED:
            column_gathered = _load(gc, gc_strides, columns, column_count, D, BLOCK_D)
            d_weights += _dot(row_gathered, tl.trans(column_gathered), PRECISION)
            if not LSE_OF_ROWS:
                value_gradient += _dot(weights.to(column_gathered.dtype), column_gathered, PRECISION)
        if INFUSED:
            column_infused = _load(ic, ic_strides, columns, column_count, D, BLOCK_D)
            d_weights += _dot(row_infused, tl.trans(column_infused), PRECISION)
        gradient += _dot((weights * d_weights).to(column_tokens.dtype), column_tokens, PRECISION)
    _store(_at_pair(d_r, d_r_strides, num_heads, pair), d_r_strides, rows, row_count, gradient * scale, D, BLOCK_D)
    if GATHERED and not LSE_OF_ROWS:
        _store(_at_pair(d_v, d_v_strides, num_heads, pair), d_v_strides, rows, row_count, value_gradient, D, BLOCK_D)


# Calls from Python, with the signatures of `lookupvivit.kernels.cpu`


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d) and L (B, H, M)."""
    out, lse = token_major(q), row_sums(q)
    sizes = (q.shape[1], q.shape[2], k.shape[2], q.shape[3] ** -0.5)
    _launch(_gather, q, (q, k, v, out, lse, *_strides(q, k, v, out), *sizes))
    return out, lse


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """Return A v (B, H, M, d), computed with the given L."""
    return _applied(q, k, lse, v, token_major(q), lse_of_rows=True)


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d)."""
    return _applied(k, q, lse, w, token_major(k), lse_of_rows=False)


def _applied(rows: Tensor, columns: Tensor, lse: Tensor, x: Tensor, out: Tensor, lse_of_rows: bool) -> Tensor:
    sizes = (rows.shape[1], rows.shape[2], columns.shape[2], rows.shape[3] ** -0.5)
    arguments = (rows, columns, x, lse, out, *_strides(rows, columns, x, out), *sizes)
    _launch(_apply, rows, arguments, LSE_OF_ROWS=lse_of_rows)
    return out


def backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and v.

    Args:
        gathered: (v, out, d_out) of a gather, as in `fused.exchange_backward`; without it, there is no gradient of v.
        infused: (w, d_w, d_lookup) of an infusion.
    """
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
        ((q, k, d_out, v, w, d_lookup), (d_q, d_v), (num_heads, m, n, scale), True),
        ((k, q, v, d_out, d_lookup, w), (d_k, d_v), (num_heads, n, m, scale), False),
    )
    for inputs, outputs, sizes, lse_of_rows in sides:
        arguments = (*inputs, lse, row_term, *outputs, *_strides(*inputs, *outputs), *sizes)
        _launch(_gradient, inputs[0], arguments, LSE_OF_ROWS=lse_of_rows, **directions)
    return d_q, d_k, None if gathered is None else d_v


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tensor.stride() for tensor in tensors]


def tile_sizes(d: int, dtype: torch.dtype) -> dict[str, int]:
    """Constants that a kernel is compiled with, by the bytes of a padded vector of one head.

    Chosen by compiling for compute capabilities 8.0 and 9.0: registers do not spill, and no kernel needs more than
    99 KiB of shared memory, which every GPU since Ampere has.
    """
    block_d = max(16, triton.next_power_of_2(d))
    vector_bytes = block_d * dtype.itemsize
    if vector_bytes <= 128:
        rows, columns, warps = 64, 64, 4
    elif vector_bytes <= 256:
        rows, columns, warps = 64, 32, 8
    else:
        rows, columns, warps = 32, 16, 8
    return {"D": d, "BLOCK_D": block_d, "ROWS": rows, "COLUMNS": columns, "num_warps": warps, "num_stages": 2}


def _launch(kernel: triton.JITFunction, rows: Tensor, arguments: tuple, **constants: bool) -> None:
    """Run a kernel over the tiles of ``rows`` (B, H, n, d)."""
    b, h, n, d = rows.shape
    sizes = tile_sizes(d, rows.dtype)
    # `fp32_precision` works whichever API set it; the legacy getter raises after the new setter.
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    if INTERPRETED:
        precision = "widened"
    grid = (triton.cdiv(n, sizes["ROWS"]) * b * h,)
    with torch.cuda.device(rows.device) if rows.is_cuda else contextlib.nullcontext():
        kernel[grid](*arguments, **constants, **sizes, PRECISION=precision)
