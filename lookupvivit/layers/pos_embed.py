"""Starting values of the learned position table."""

from __future__ import annotations

import torch
from torch import Tensor


def normal_positions(grid: tuple[int, int, int], width: int) -> Tensor:
    """N(0, 0.02) as ViViT starts from, (1, t, h, w, D)."""
    return torch.randn(1, *grid, width) * 0.02


def sincos_positions(grid: tuple[int, int, int], width: int, scale: float = 0.4) -> Tensor:
    """Sines and cosines of the three coordinates, (1, t, h, w, D): near places start out alike.

    A quarter of the width tells time, the rest is shared by height and width, with wavelengths from 2 pi to 200 pi
    tokens. ``scale`` makes them as large as an embedded tubelet. From random positions a model must first find out
    where its tokens are; on small data that is most of the training (big_vision offers fixed ones for that reason).
    """
    widths = (width // 4, (width - width // 4) // 2, width - width // 4 - (width - width // 4) // 2)
    axes = [
        _waves(count, channels).reshape(*[-1 if i == axis else 1 for i in range(3)], channels)
        for axis, (count, channels) in enumerate(zip(grid, widths, strict=True))
    ]
    return scale * torch.cat([waves.expand(*grid, -1) for waves in axes], dim=-1)[None]


def _waves(count: int, channels: int) -> Tensor:
    pairs = (channels + 1) // 2
    angles = torch.arange(count)[:, None] * 100.0 ** -(torch.arange(pairs) / pairs)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :channels]  # (count, channels)


POSITION_INITS = {"normal": normal_positions, "sincos": sincos_positions}
