"""The exchange in plain PyTorch: the oracle that every faster implementation is tested against."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor

torch.fx.wrap("attend")  # recorded by `torch.fx` as it is: what it does depends on the type of the queries


def attend(q: Tensor, k: Tensor) -> Tensor:
    """Materialise the attention matrix.

    Args:
        q: (B, H, M, d).
        k: (B, H, N, d).

    Returns:
        A (B, H, M, N) = softmax over the N lookup tokens of q k^T / sqrt(d), computed in at least float32 and returned
        in the dtype of ``q``.
    """
    # Departure from Algorithm 1: it prints no scale; 1 / sqrt(d) is that of a standard transformer.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Lookup to compressed (l->p), Algorithm 1, lines 4-5: attend to the lookup tokens.

    Args:
        q: (B, H, M, d) from the compressed tokens.
        k, v: (B, H, N, d) from the lookup tokens.

    Returns:
        A v (B, H, M, d), and A (B, H, M, N) as :func:`attend` returns it.
    """
    attention = attend(q, k)
    return attention @ v, attention


def infuse(attention: Tensor, v: Tensor) -> Tensor:
    """Compressed to lookup (p->l), Algorithm 2, line 3: apply the same attention transposed.

    The transposed weights are not renormalised, as printed: the weights that a lookup token receives sum to M / N on
    average, and to nearly zero if no compressed token attends to it.

    Args:
        attention: A (B, H, M, N) from :func:`gather`.
        v: (B, H, M, d) from the refined compressed tokens.

    Returns:
        A^T v (B, H, N, d).
    """
    return attention.transpose(-2, -1) @ v
