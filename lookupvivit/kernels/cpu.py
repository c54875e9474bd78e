"""The exchange on the CPU, out of PyTorch's own flash attention.

Both directions are ordinary attention in disguise, so that no tile of A is ever written by hand:

* A v is attention. With it comes L, the log-sum-exp of every row of scores.
* A^T w: a lookup token n that attends to the compressed tokens with scores s_mn - L_m receives (A^T w)_n / Z_n, and
  its own log-sum-exp is log Z_n.
* d<x, A y> / d(q, k) is attention's backward pass for values y and incoming gradient x. That is the gather's share
  with (x, y) = (gradient of A v, v), and the infusion's with (x, y) = (w, gradient of A^T w).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lookupvivit.kernels.fused import token_major

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# Lookup tokens at a time. From 768 queries on the operator takes tiles of 256 instead of 64; with values as few as the
# compressed tokens' that took 1.4 times as long (N = 3136, M = 648, 12 heads of 64). Its other uses here gain nothing.
CHUNK = 512


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A v (B, H, M, d) and L (B, H, M)."""
    out, lse = _attend(_rows(q), _rows(k), _rows(v))  # laid out as q is, which need not be what a compiler was told
    promised = token_major(q)
    return out if out.stride() == promised.stride() else promised.copy_(out), lse.contiguous()


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """A v (B, H, M, d); PyTorch's operator does not take the L it could save itself finding again."""
    return gather(q, k, v)[0]


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """A^T w (B, H, N, d)."""
    q, w, shift = _rows(q), _rows(w), -lse.unsqueeze(2)  # in float32 whatever q is: a rounded L is a wrong weight
    parts = []
    for chunk in _rows(k).chunk(math.ceil(k.shape[2] / CHUNK), dim=2):
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
    """Gradients of q and k, and of the gathered values where these are given; see `fused.exchange_backward`."""
    shares = []
    if gathered is not None:
        v, out, d_out = gathered
        shares.append(_attend_backward(_rows(d_out), _rows(q), _rows(k), _rows(v), out, lse, 0.0, False))
    if infused is not None:
        w, d_w, d_lookup = infused
        shares.append(_attend_backward(_rows(w), _rows(q), _rows(k), _rows(d_lookup), d_w, lse, 0.0, False))
    d_q, d_k, d_v = shares[0]
    for more_q, more_k, _ in shares[1:]:
        d_q, d_k = d_q + more_q, d_k + more_k
    return d_q, d_k, None if gathered is None else d_v


def _rows(tokens: Tensor) -> Tensor:
    """The operator reads whole rows: the last dimension must be dense."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()
