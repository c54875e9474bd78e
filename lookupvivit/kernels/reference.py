"""Plain PyTorch exchange: the oracle that every faster implementation is tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor) -> Tensor:
    """A (B, H, M, N) = softmax over the N lookup tokens of q k^T / sqrt(d), in the dtype of ``q``."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Lookup to compressed, Algorithm 1 lines 4-5: read from the lookup tokens.

    Args:
        q: (B, H, M, d) from the compressed tokens.
        k, v: (B, H, N, d) from the lookup tokens.

    Returns:
        A v (B, H, M, d), and A (B, H, M, N) = softmax over the N lookup tokens of q k^T / sqrt(d), taken in
        at least float32 and handed back in the dtype of ``q``.
    """
    attention = attend(q, k)
    return attention @ v, attention


def infuse(attention: Tensor, v: Tensor) -> Tensor:
    """Compressed to lookup, Algorithm 2 line 3: hand back along the same weights, transposed.

    The weights are those of :func:`gather`, not renormalised: what a lookup token receives sums to M / N on
    average, and a token nobody looked at receives nothing.

    Args:
        attention: (B, H, M, N) from :func:`gather`.
        v: (B, H, M, d) from the refined compressed tokens.

    Returns:
        A^T v (B, H, N, d).
    """
    return attention.transpose(-2, -1) @ v
