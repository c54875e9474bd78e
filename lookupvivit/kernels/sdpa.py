"""The gather and all gradients on a GPU by PyTorch's attention operators: FlashAttention-2 and cuDNN.

As in `cpu_flash`, the gather is attention that also returns L, and each direction contributes to the gradients the
backward pass of attention. The operators have no way to subtract a given L, so that the infusion is not here (`flex`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lookupvivit.kernels.buffers import dense_rows, to_token_major

BACKENDS = ("flash", "cudnn")

_aten = torch.ops.aten


def gather(q: Tensor, k: Tensor, v: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d) and L (B, H, M)."""
    q, k, v = map(dense_rows, (q, k, v))
    out: Tensor
    lse: Tensor
    if backend == "flash":
        out, lse, *_ = _aten._scaled_dot_product_flash_attention(q, k, v)
    else:
        out, lse, *_ = _aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
        lse = lse.squeeze(-1)  # (B, H, M, 1)
    return to_token_major(out), lse.contiguous()


def backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and v; the arguments are those of `lookupvivit.kernels.cpu_flash.backward`."""
    d_q: Tensor | None = None
    d_k: Tensor | None = None
    d_v: Tensor | None = None
    if gathered is not None:
        v, out, d_out = gathered
        d_q, d_k, d_v = _attention_gradients(d_out, q, k, v, out, lse, backend)
    if infused is not None:
        w, d_w, d_lookup = infused
        more_q, more_k, _ = _attention_gradients(w, q, k, d_lookup, d_w, lse, backend)
        d_q = more_q if d_q is None else d_q + more_q
        d_k = more_k if d_k is None else d_k + more_k
    assert d_q is not None and d_k is not None
    return to_token_major(d_q), to_token_major(d_k), None if d_v is None else to_token_major(d_v)


def _attention_gradients(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v of attention without dropout, whose random state is therefore not read."""
    d_out, q, k, v, out = map(dense_rows, (d_out, q, k, v, out))
    sizes: tuple[Any, ...] = (None, None, q.shape[2], k.shape[2], 0.0, False)  # equal lengths, no dropout, not causal
    if backend == "flash":
        seed, offset = (torch.empty(n, dtype=torch.uint64, device=q.device) for n in ((2,), ()))
        return _aten._scaled_dot_product_flash_attention_backward(d_out, q, k, v, out, lse, *sizes, seed, offset)
    seed = torch.empty((), dtype=torch.int64, device=q.device)
    lse = lse.unsqueeze(-1)
    return _aten._scaled_dot_product_cudnn_attention_backward(d_out, q, k, v, out, lse, seed, seed, None, *sizes)
