"""The infusion by FlexAttention.

A^T w is attention of the lookup tokens (queries) to the compressed tokens (keys) with scores s_mn - L_m, times the sum
of the weights that it normalises by: exp of its own log-sum-exp (`cpu` does the same with a mask).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lookupvivit.kernels.buffers import token_major


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d). Compiled on a GPU; elsewhere PyTorch materialises the scores."""
    return (_compiled() if q.is_cuda else _infuse)(q, k, lse, w)


def _infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention  # imports the compiler

    def shifted(score: Tensor, b: Tensor, h: Tensor, lookup: Tensor, compressed: Tensor) -> Tensor:
        return score - lse[b, h, compressed]

    mean, aux = flex_attention(k, q, w, score_mod=shifted, return_aux=AuxRequest(lse=True))
    assert aux.lse is not None
    return token_major(k).copy_(mean * aux.lse.exp().unsqueeze(-1))


@cache
def _compiled() -> Any:
    return torch.compile(_infuse, dynamic=False)
