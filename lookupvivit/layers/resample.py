"""T(x, s) of Eq. 1: linear resampling of a token grid.

A trilinear resize is three 1-D linear maps, one per axis, that is three small matrix products. In this form it can be
antialiased in 3-D, which `torch.nn.functional.interpolate` does not support.
"""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor

from lookupvivit.sizes import Size


def resampling_matrix(
    source: int, target: int, antialias: bool, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Weights (target, source) of a 1-D linear resize with half-pixel centres; each row sums to 1.

    Args:
        antialias: when shrinking, widen the triangle kernel by the reduction factor, as `jax.image.resize` does by
            default for "linear". Without it, the result is that of PyTorch's ``align_corners=False``.

    The matrix is computed on the device in every call: copying it from the host would synchronise a GPU, and a cached
    tensor would be captured by a traced program. Distances are integers, in units of 1 / (2 target) of a source step:
    they are exact, and only the final division rounds.
    """
    outputs, inputs = torch.arange(target, device=device), torch.arange(source, device=device)
    centres = (2 * outputs + 1) * source - target
    if not antialias:
        centres = centres.clamp(0, 2 * target * (source - 1))  # repeat the border
    support = 2 * (max(source, target) if antialias else target)
    distances = (2 * target * inputs - centres[:, None]).abs()  # (target, source)
    weights = (support - distances).clamp(min=0)
    precise = torch.promote_types(dtype, torch.float32)  # bfloat16 cannot represent the sums of a large grid exactly
    return (weights.to(precise) / weights.sum(1, keepdim=True)).to(dtype)


def resample(grid: Tensor, size: Size, antialias: bool = True) -> Tensor:
    """Resize a token grid (B, t, h, w, D) to (B, *size, D).

    Not stated in the paper: it prints "bilinearly resizes", without saying whether antialiased. The default is that of
    JAX, in which the paper's models were written.
    """
    t, h, w = size
    for axis, target in ((2, h), (3, w), (1, t)):  # space first, because it shrinks most
        grid = _resample_axis(grid, axis, target, antialias)
    return grid


def _resample_axis(grid: Tensor, axis: int, target: int, antialias: bool) -> Tensor:
    source, target = int(grid.shape[axis]), int(target)  # tensors under `torch.jit.trace`
    if source == target:
        return grid
    weights = resampling_matrix(source, target, antialias, grid.dtype, grid.device)
    between, after = grid.shape[1:axis], grid.shape[axis + 1 :]
    rows = grid.flatten(0, axis - 1).flatten(2)  # (B * between, source, after)
    # -1 instead of B: a size computed from the batch size would be constant in an exported program.
    return (weights @ rows).reshape(-1, *between, target, *after)


torch.fx.wrap("_resample_axis")  # recorded by `torch.fx` as it is: what it does depends on the shape of the grid
