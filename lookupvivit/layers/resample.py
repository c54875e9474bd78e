"""T(x, s) of Eq. 1: separable linear resampling of a token grid, exact in one, two or three dimensions.

A trilinear resize is three 1-D linear maps, one per axis. Writing it that way gives antialiasing in 3-D, which
`torch.nn.functional.interpolate` does not have, and costs three small matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resampling_matrix(
    source: int, target: int, antialias: bool, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Weights (target, source) of a 1-D linear resize with half-pixel centres; each row sums to 1.

    With ``antialias`` the triangle kernel is widened by the reduction factor when shrinking, as
    `jax.image.resize(..., "linear")` does by default; without it, this is PyTorch's ``align_corners=False``.

    Made anew for each call, on the device: nothing is copied from the host, which would wait for a GPU, and nothing is
    kept that a traced program would capture. Whole numbers, in units of 1 / (2 target) of a source step, keep it exact
    to the division that ends it.
    """
    outputs, inputs = torch.arange(target, device=device), torch.arange(source, device=device)
    centres = (2 * outputs + 1) * source - target
    if not antialias:
        centres = centres.clamp(0, 2 * target * (source - 1))  # the border repeats
    support = 2 * (max(source, target) if antialias else target)
    weights = (support - (2 * target * inputs - centres[:, None]).abs()).clamp(min=0)
    precise = torch.promote_types(dtype, torch.float32)  # the sums of a large grid are no bfloat16
    return (weights.to(precise) / weights.sum(1, keepdim=True)).to(dtype)


def resample(grid: Tensor, size: tuple[int, int, int], antialias: bool = True) -> Tensor:
    """Resize a token grid (B, t, h, w, D) to (B, *size, D)."""
    for axis, target in zip((2, 3, 1), (size[1], size[2], size[0]), strict=True):  # space first: it shrinks most
        source, target = int(grid.shape[axis]), int(target)  # a tracer hands out sizes as tensors
        if source == target:
            continue
        weights = resampling_matrix(source, target, antialias, grid.dtype, grid.device)
        between, after = grid.shape[1:axis], grid.shape[axis + 1 :]
        resized = weights @ grid.flatten(0, axis - 1).flatten(2)  # (B * between, target, after)
        # -1 and not B: a size computed from the batch's would fix it in an exported program
        grid = resized.reshape(-1, *between, target, *after)
    return grid
