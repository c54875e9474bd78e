"""Tensors in the memory layout that the fused implementations agree on."""

from __future__ import annotations

import torch
from torch import Tensor


def token_major(like: Tensor) -> Tensor:
    """Allocate (B, H, n, d) in the memory layout (B, n, H, d), in which merging the heads needs no copy."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def row_sums(like: Tensor) -> Tensor:
    """Allocate L (B, H, M), in at least float32, for queries (B, H, M, d)."""
    return like.new_empty(like.shape[:3], dtype=torch.promote_types(like.dtype, torch.float32))


def to_token_major(values: Tensor) -> Tensor:
    """Copy (B, H, n, d) to the layout of `token_major`, which a compiler expects of results, unless it has it."""
    expected = token_major(values)
    return values if values.stride() == expected.stride() else expected.copy_(values)


def dense_rows(tokens: Tensor) -> Tensor:
    """Copy if the last dimension has gaps, which PyTorch's attention operators do not support."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()
