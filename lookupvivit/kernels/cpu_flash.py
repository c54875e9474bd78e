"""The exchange on the CPU in half precision, built from PyTorch's flash attention operator.

The operator sums scores in float32, which `torch.bmm` (`chunked`) cannot return for half-precision factors. Both
directions can be written as ordinary attention, so that no code here handles tiles of A:

* A v is attention. The operator also returns L, the log-sum-exp of every row of scores.
* A^T w is attention of a lookup token n to the compressed tokens with scores s_mn - L_m, up to a factor: the operator
  returns (A^T w)_n / Z_n and log Z_n, where Z_n = sum_m A_mn.
* The gradient of <x, A y> with respect to q and k is the backward pass of attention with values y and incoming gradient
  x. The gather contributes it with (x, y) = (gradient of A v, v), the infusion with (x, y) = (w, gradient of A^T w).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lookupvivit.kernels.buffers import dense_rows, to_token_major

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# Lookup tokens per call in `infuse`. From 768 queries on, the operator uses tiles of 256 queries instead of 64. With as
# few values as there are compressed tokens this took 1.4 times as long (N = 3136, M = 648, 12 heads of width 64). The
# other calls do not gain from chunks.
CHUNK = 512


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d) and L (B, H, M)."""
    out, lse = _attend(dense_rows(q), dense_rows(k), dense_rows(v))
    return to_token_major(out), lse.contiguous()  # the operator lays its result out like q


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """Return A v (B, H, M, d); computes L again, because PyTorch's operator does not accept it."""
    return gather(q, k, v)[0]


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d)."""
    q, w = dense_rows(q), dense_rows(w)
    shift = -lse.unsqueeze(2)  # (B, H, 1, M), float32 for every dtype of q: a rounded L gives wrong weights
    parts = []
    for chunk in dense_rows(k).chunk(math.ceil(k.shape[2] / CHUNK), dim=2):  # (B, H, n, d)
        mean, log_total = _attend(chunk, q, w, attn_mask=shift)
        parts.append(mean.mul_(log_total.exp().unsqueeze(-1)).transpose(1, 2))  # (B, n, H, d)
    return torch.cat(parts, dim=1).transpose(1, 2)


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
    shares = []
    if gathered is not None:
        v, out, d_out = gathered
        operands = map(dense_rows, (d_out, q, k, v))
        shares.append(_attend_backward(*operands, out, lse, 0.0, False))
    if infused is not None:
        w, d_w, d_lookup = infused
        operands = map(dense_rows, (w, q, k, d_lookup))
        shares.append(_attend_backward(*operands, d_w, lse, 0.0, False))
    d_q, d_k, d_v = shares[0]
    for other_d_q, other_d_k, _ in shares[1:]:
        d_q, d_k = d_q + other_d_q, d_k + other_d_k
    return d_q, d_k, None if gathered is None else d_v
