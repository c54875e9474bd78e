"""Tensors in the memory layout that the fused implementations agree on."""

from __future__ import annotations

import math
import weakref

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


_free: list[Tensor] = []  # the memory that no tensor uses, at most one


def workspace(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Allocate a large tensor on the CPU with the dtype of ``like``, if possible in the memory of an earlier one.

    The system clears new memory page by page, which takes longer than computing A in it. When a tensor is freed, its
    memory therefore stays allocated for the next.
    """
    size = math.prod(shape) * like.dtype.itemsize
    try:
        memory = _free.pop()  # another thread may take it at the same time
    except IndexError:
        memory = None
    if memory is None or memory.numel() < size:
        memory = torch.empty(size, dtype=torch.uint8)
    lent = memory.numpy()[:size]  # the returned tensor holds this object, and nothing else does
    weakref.finalize(lent, _give_back, memory).atexit = False
    return torch.from_numpy(lent).view(like.dtype).view(shape)


def _give_back(memory: Tensor) -> None:
    try:
        other = _free.pop()  # never read without taking it, because another thread may take it as well
    except IndexError:
        other = memory
    _free[:] = [max(memory, other, key=Tensor.numel)]
