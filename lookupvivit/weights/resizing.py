"""Patch kernels and position tables of other models, in the shapes of this library's models."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from data_pipelines.transforms.normalization import IMAGENET_MEAN, IMAGENET_STD
from lookupvivit.layers.resample import resample
from lookupvivit.sizes import Size
from lookupvivit.weights.files import WeightsError

INFLATIONS = ("central", "average")


def inflate(kernel: Tensor, frames: int, inflation: str) -> Tensor:
    """Inflate a 2-D patch kernel to a tubelet (Arnab et al., section 3.4).

    Args:
        kernel: (D, 3, h, w).
        frames: of a tubelet.
        inflation: "central" puts the kernel into the middle frame and zeros into the others; "average" spreads it
            evenly.

    Returns:
        (D, 3, frames, h, w).
    """
    if inflation == "average":
        return kernel[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    if inflation != "central":
        raise WeightsError(f"inflation: found {inflation!r}, expected one of {', '.join(INFLATIONS)}")
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def fold_imagenet_normalization(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Adapt a patch embedding made for pixels (x - mean) / std, x in [0, 1], to pixels 2 x - 1.

    The result is exact, because patches are not padded.

    Args:
        kernel: (D, 3, t, h, w).
        bias: (D,).
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return kernel / (2 * std), bias + (kernel * (0.5 - mean) / std).sum((1, 2, 3, 4))


def unflatten_positions(table: Tensor, grid: Size, is_image: bool) -> Tensor:
    """Arrange a flat position table (1, N, D) on the grid that it was made for: (1, t, h, w, D).

    Files do not record that grid. A table of images has the height and width of the model's grid or is square; a table
    of videos has the model's height and width at any length, or square frames at the model's length.

    Args:
        table: (1, N, D); (1, t, h, w, D) is returned unchanged.
        grid: (t, h, w) of the model.
        is_image: whether the source is an image model.

    Raises:
        WeightsError: N fits none of these.
    """
    if table.dim() == 5:
        return table
    num_tokens, (t, h, w) = table.shape[1], grid
    side = math.isqrt(num_tokens if is_image else num_tokens // t)
    if is_image and num_tokens == h * w:
        return table.unflatten(1, (1, h, w))
    if is_image and side * side == num_tokens:
        return table.unflatten(1, (1, side, side))
    if not is_image and num_tokens % (h * w) == 0:
        return table.unflatten(1, (-1, h, w))
    if not is_image and t * side * side == num_tokens:
        return table.unflatten(1, (t, side, side))
    kind = "an image model" if is_image else "a video model"
    raise WeightsError(
        f"positions: found {num_tokens} of {kind}, which fit neither the model's grid {grid} nor squares; build the "
        "model at the source's size"
    )


def resize_positions(table: Tensor, grid: Size) -> Tensor:
    """Resize a table (1, t, h, w, D) to (1, *grid, D): in space always; over time, a single frame is repeated."""
    if table.shape[1] == 1:
        return resample(table, (1, *grid[1:])).repeat(1, grid[0], 1, 1, 1)
    return resample(table, grid)


def spread_kernel(kernel: Tensor, tubelet: Size, inflation: str) -> Tensor:
    """Fit a kernel (D, 3, t, h, w) to a tubelet of n times as many frames: it reads every n-th frame, at first.

    The kernel of an image model, with t = 1, is inflated. Kernels of other sizes are returned unchanged.
    """
    frames = kernel.shape[2]
    if kernel.shape[3:] != tubelet[1:] or tubelet[0] % frames:
        return kernel
    if frames == 1:
        return inflate(kernel[:, :, 0], tubelet[0], inflation)
    spread = kernel.new_zeros(*kernel.shape[:2], *tubelet)
    spread[:, :, :: tubelet[0] // frames] = kernel
    return spread


def sincos_of_index(count: int, width: int) -> Tensor:
    """VideoMAE's fixed positions (1, count, width): sin and cos of n / 10000^(2i / width) for token n."""
    angles = np.arange(count)[:, None] / 10000.0 ** (2 * (np.arange(width) // 2) / width)
    table = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.from_numpy(table).float()[None]
