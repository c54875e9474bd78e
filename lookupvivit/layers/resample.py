"""T(x, s) of Eq. 1: separable linear resampling of a token grid, exact in one, two or three dimensions.

A trilinear resize is three 1-D linear maps, one per axis. Writing it that way gives antialiasing in 3-D, which
`torch.nn.functional.interpolate` does not have, and costs three small matrix products.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=256)
def resampling_matrix(source: int, target: int, antialias: bool) -> np.ndarray:
    """Weights (target, source) of a 1-D linear resize with half-pixel centres; each row sums to 1.

    With ``antialias`` the triangle kernel is widened by the reduction factor when shrinking, as
    `jax.image.resize(..., "linear")` does by default; without it, this is PyTorch's ``align_corners=False``.
    """
    scale = source / target
    support = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(target) + 0.5) * scale - 0.5
    if not antialias:
        centres = np.clip(centres, 0, source - 1)  # the border repeats
    distance = np.abs(np.arange(source)[None, :] - centres[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


@torch.compiler.assume_constant_result  # sizes are constants to a compiler; it could not trace NumPy's flags
def _weights(source: int, target: int, antialias: bool) -> list[list[float]]:
    return resampling_matrix(source, target, antialias).tolist()


def resample(grid: Tensor, size: tuple[int, int, int], antialias: bool = True) -> Tensor:
    """Resize a token grid (B, t, h, w, D) to (B, *size, D)."""
    for axis, target in zip((2, 3, 1), (size[1], size[2], size[0]), strict=True):  # space first: it shrinks most
        source, target = int(grid.shape[axis]), int(target)  # a tracer hands out sizes as tensors
        if source == target:
            continue
        # Made anew from the cached NumPy array: a cached tensor would be captured by tracing.
        weights = torch.tensor(_weights(source, target, antialias), dtype=grid.dtype, device=grid.device)
        between, after = grid.shape[1:axis], grid.shape[axis + 1 :]
        resized = weights @ grid.flatten(0, axis - 1).flatten(2)  # (B * between, target, after)
        # -1 and not B: a size computed from the batch's would fix it in an exported program
        grid = resized.reshape(-1, *between, target, *after)
    return grid
