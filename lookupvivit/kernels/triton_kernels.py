"""Triton kernels of the exchange: three, each used for both sides. `triton` calls them.

A program owns a tile of tokens of one side (its *rows*) and iterates over the tokens of the other side (the *columns*).
It recomputes a tile of A from the scores, in registers, and L. As either side can be the rows, the same source serves

    _gather     compressed rows: A v and L, by online softmax (FlashAttention-2, Dao 2023)
    _apply      compressed rows: A x;              lookup rows: A^T x
    _gradient   compressed rows: gradient of q;    lookup rows: gradients of k and v

One pass of `_gradient` over the tiles of A serves both directions of the exchange (see `fused`). The kernels use no
atomics, so that results are reproducible to the bit. Matrix products take the dtype of the inputs and accumulate in
float32; exponentials are to the base 2. N and M are arbitrary, and a head width is padded to the next power of two.

Columns are processed in two loops: full tiles, which are loaded without masks, and a PARTIAL last one. The second is a
loop of at most one tile because a conditional block would load its tiles into registers, which then spill. With
DESCRIPTORS, tiles of columns are loaded through tensor descriptors (`tiles`).

One binary serves all numbers of tokens and heads, so that a few compilations are enough for tuning (`tiles`).
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

LOG2E = tl.constexpr(math.log2(math.e))
COUNTS = ["num_heads", "m", "n", "row_count", "column_count"]


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
def _load(tensor, strides, tokens, count, D: tl.constexpr, BLOCK_D: tl.constexpr, PARTIAL: tl.constexpr):
    """Load (tokens, BLOCK_D), with zeros behind the last feature and, in a PARTIAL tile, behind the last token."""
    features = tl.arange(0, BLOCK_D)
    pointers = tensor + tokens[:, None] * strides[2] + features[None, :] * strides[3]
    if PARTIAL:
        return tl.load(pointers, mask=(tokens < count)[:, None] & (features < D)[None, :], other=0.0)
    if D < BLOCK_D:
        return tl.load(pointers, mask=(features < D)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def _columns_of(
    tensor, strides, count,
    D: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """What `_load_columns` reads from: a tensor descriptor, or the pointer to one head of one sample as it is."""
    if DESCRIPTORS:
        return tl.make_tensor_descriptor(tensor, [count, D], [strides[2], 1], [COLUMNS, BLOCK_D])
    else:  # Triton compiles what follows a return, which must then have the same type
        return tensor


@triton.jit
def _load_columns(
    source, strides, start, count,
    D: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr, DESCRIPTORS: tl.constexpr, PARTIAL: tl.constexpr,
):  # fmt: skip
    """As `_load`, for the tokens from ``start`` on."""
    if DESCRIPTORS:  # which read zeros outside of the tensor
        return source.load([start, 0])
    else:
        return _load(source, strides, start + tl.arange(0, COLUMNS), count, D, BLOCK_D, PARTIAL)


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
def _weights(
    rows, columns, lse, valid_columns, scale,
    LSE_OF_ROWS: tl.constexpr, PRECISION: tl.constexpr, PARTIAL: tl.constexpr,
):  # fmt: skip
    """A tile of A (LSE_OF_ROWS) or of its transpose: L belongs to the compressed side. Invalid columns get weight 0."""
    scores = _dot(rows, tl.trans(columns), PRECISION) * (scale * LOG2E)
    shift = (lse[:, None] if LSE_OF_ROWS else lse[None, :]) * LOG2E
    weights = tl.exp2(scores - shift)
    if PARTIAL:
        weights = tl.where(valid_columns[None, :], weights, 0.0)
    return weights


@triton.jit
def _load_sums(sums, tokens, count, other, PARTIAL: tl.constexpr):
    """Load one number per token, such as L."""
    if PARTIAL:
        return tl.load(sums + tokens, mask=tokens < count, other=other)
    return tl.load(sums + tokens)


@triton.jit(do_not_specialize=COUNTS)
def _gather(
    q, k, v, out, lse,
    q_strides, k_strides, v_strides, out_strides,
    num_heads, m, n, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = A v, and L: the rows are compressed tokens, the columns lookup tokens."""
    rows, pair = _program_rows(m, ROWS)
    q = _at_pair(q, q_strides, num_heads, pair)
    k = _columns_of(_at_pair(k, k_strides, num_heads, pair), k_strides, n, D, BLOCK_D, COLUMNS, DESCRIPTORS)
    v = _columns_of(_at_pair(v, v_strides, num_heads, pair), v_strides, n, D, BLOCK_D, COLUMNS, DESCRIPTORS)
    queries = _load(q, q_strides, rows, m, D, BLOCK_D, True)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, BLOCK_D), tl.float32)
    full = n // COLUMNS * COLUMNS
    for PARTIAL in tl.static_range(2):
        for start in range(PARTIAL * full, n if PARTIAL else full, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            keys = _load_columns(k, k_strides, start, n, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL)
            scores = _dot(queries, tl.trans(keys), PRECISION) * (scale * LOG2E)
            if PARTIAL:
                scores = tl.where((columns < n)[None, :], scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, 1))
            weights = tl.exp2(scores - larger[:, None])
            shrink = tl.exp2(largest - larger)
            total = total * shrink + tl.sum(weights, 1)
            values = _load_columns(v, v_strides, start, n, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL)
            result = result * shrink[:, None] + _dot(weights.to(values.dtype), values, PRECISION)
            largest = larger
    _store(_at_pair(out, out_strides, num_heads, pair), out_strides, rows, m, result / total[:, None], D, BLOCK_D)
    tl.store(lse + pair * m + rows, (largest + tl.log2(total)) / LOG2E, mask=rows < m)


@triton.jit(do_not_specialize=COUNTS)
def _apply(
    r, c, x, lse, out,
    r_strides, c_strides, x_strides, out_strides,
    num_heads, row_count, column_count, scale,
    LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = A x with r = q, c = k (LSE_OF_ROWS), or A^T x with r = k, c = q; x belongs to the columns."""
    rows, pair = _program_rows(row_count, ROWS)
    r = _at_pair(r, r_strides, num_heads, pair)
    c = _columns_of(_at_pair(c, c_strides, num_heads, pair), c_strides, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS)
    x = _columns_of(_at_pair(x, x_strides, num_heads, pair), x_strides, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS)
    lse += pair * (row_count if LSE_OF_ROWS else column_count)
    row_tokens = _load(r, r_strides, rows, row_count, D, BLOCK_D, True)
    if LSE_OF_ROWS:
        shift = _load_sums(lse, rows, row_count, float("inf"), True)
    result = tl.zeros((ROWS, BLOCK_D), tl.float32)
    full = column_count // COLUMNS * COLUMNS
    for PARTIAL in tl.static_range(2):
        for start in range(PARTIAL * full, column_count if PARTIAL else full, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            column_tokens = _load_columns(c, c_strides, start, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL)
            if not LSE_OF_ROWS:
                shift = _load_sums(lse, columns, column_count, float("inf"), PARTIAL)
            valid = columns < column_count
            weights = _weights(row_tokens, column_tokens, shift, valid, scale, LSE_OF_ROWS, PRECISION, PARTIAL)
            values = _load_columns(x, x_strides, start, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL)
            result += _dot(weights.to(values.dtype), values, PRECISION)
    _store(_at_pair(out, out_strides, num_heads, pair), out_strides, rows, row_count, result, D, BLOCK_D)


@triton.jit(do_not_specialize=COUNTS)
def _gradient(
    r, c, gr, gc, ir, ic, lse, row_term, d_r, d_v,
    r_strides, c_strides, gr_strides, gc_strides, ir_strides, ic_strides, d_r_strides, d_v_strides,
    num_heads, row_count, column_count, scale,
    GATHERED: tl.constexpr, INFUSED: tl.constexpr, LSE_OF_ROWS: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_r = d_s c with d_s = A * (g v^T + w h^T - row_term), or its transpose if the rows are lookup tokens.

    (gr, gc) are (g, v) if the rows are compressed tokens, else (v, g); (ir, ic) are (w, h), else (h, w).
    """
    rows, pair = _program_rows(row_count, ROWS)
    r = _at_pair(r, r_strides, num_heads, pair)
    c = _columns_of(_at_pair(c, c_strides, num_heads, pair), c_strides, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS)
    first = pair * (row_count if LSE_OF_ROWS else column_count)
    row_tokens = _load(r, r_strides, rows, row_count, D, BLOCK_D, True)
    if GATHERED:
        gc = _columns_of(
            _at_pair(gc, gc_strides, num_heads, pair), gc_strides, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS
        )
        row_gathered = _load(_at_pair(gr, gr_strides, num_heads, pair), gr_strides, rows, row_count, D, BLOCK_D, True)
    if INFUSED:
        ic = _columns_of(
            _at_pair(ic, ic_strides, num_heads, pair), ic_strides, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS
        )
        row_infused = _load(_at_pair(ir, ir_strides, num_heads, pair), ir_strides, rows, row_count, D, BLOCK_D, True)
    if LSE_OF_ROWS:
        shift = _load_sums(lse + first, rows, row_count, float("inf"), True)
        term = _load_sums(row_term + first, rows, row_count, 0.0, True)[:, None]
    gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    value_gradient = tl.zeros((ROWS, BLOCK_D), tl.float32)
    full = column_count // COLUMNS * COLUMNS
    for PARTIAL in tl.static_range(2):
        for start in range(PARTIAL * full, column_count if PARTIAL else full, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            column_tokens = _load_columns(c, c_strides, start, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL)
            if not LSE_OF_ROWS:
                shift = _load_sums(lse + first, columns, column_count, float("inf"), PARTIAL)
                term = _load_sums(row_term + first, columns, column_count, 0.0, PARTIAL)[None, :]
            valid = columns < column_count
            weights = _weights(row_tokens, column_tokens, shift, valid, scale, LSE_OF_ROWS, PRECISION, PARTIAL)
            d_weights = tl.zeros((ROWS, COLUMNS), tl.float32) - term
            if GATHERED:
                column_gathered = _load_columns(
                    gc, gc_strides, start, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL
                )
                d_weights += _dot(row_gathered, tl.trans(column_gathered), PRECISION)
                if not LSE_OF_ROWS:
                    value_gradient += _dot(weights.to(column_gathered.dtype), column_gathered, PRECISION)
            if INFUSED:
                column_infused = _load_columns(
                    ic, ic_strides, start, column_count, D, BLOCK_D, COLUMNS, DESCRIPTORS, PARTIAL
                )
                d_weights += _dot(row_infused, tl.trans(column_infused), PRECISION)
            gradient += _dot((weights * d_weights).to(column_tokens.dtype), column_tokens, PRECISION)
    _store(_at_pair(d_r, d_r_strides, num_heads, pair), d_r_strides, rows, row_count, gradient * scale, D, BLOCK_D)
    if GATHERED and not LSE_OF_ROWS:
        _store(_at_pair(d_v, d_v_strides, num_heads, pair), d_v_strides, rows, row_count, value_gradient, D, BLOCK_D)
