"""Attention tensors of a model to maps over the frames of its input (Fig. 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_attention(attention: Tensor) -> Tensor:
    """Where a block looks on average, as in Fig. 7: mean over heads and compressed tokens.

    Args:
        attention: A (B, heads, tp, hp, wp, t, h, w), summing to 1 over (t, h, w). The paper shows the first
            block's for video and finds the second's best for images (appendix A.6).

    Returns:
        Maps (B, t, h, w), float32, summing to 1 over (t, h, w).
    """
    if attention.dim() != 8:
        raise ValueError(f"attention must be (B, heads, tp, hp, wp, t, h, w), found {tuple(attention.shape)}")
    return attention.float().mean(dim=(1, 2, 3, 4))


def upsample_maps(maps: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Spread token maps (B, t, h, w) over the pixels of a clip, (B, frames, height, width).

    Bilinear in space. In time each map is shown on the frames of its tubelet, frame f on map f * t // frames:
    the model sees a tubelet as a whole, so nothing is known in between.
    """
    if maps.dim() != 4:
        raise ValueError(f"maps must be (B, t, h, w), found {tuple(maps.shape)}")
    tubelet = torch.arange(frames, device=maps.device) * maps.shape[1] // frames
    fine = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return fine[:, tubelet]


def normalize_maps(maps: Tensor, ceiling: float = 0.99) -> tuple[Tensor, Tensor, Tensor]:
    """Scale each clip's maps (B, T, H, W) to [0, 1], from its smallest value to its ``ceiling`` quantile.

    One scale per clip and not per frame, so that brightness can be compared over time. A quantile rather than the
    largest value, which one token in a thousand may hold while all others would be black; values above it show as 1.

    Returns:
        The scaled maps, and lo and hi (B,): the values shown as 0 and 1. A map that is the same everywhere is 0.
    """
    flat = maps.flatten(1).sort(dim=1).values  # torch.quantile refuses more than 2^24 values
    lo, hi = flat[:, 0], flat[:, round(ceiling * (flat.shape[1] - 1))]
    spread = (hi - lo).clamp_min(torch.finfo(maps.dtype).tiny)
    scaled = ((maps - lo[:, None, None, None]) / spread[:, None, None, None]).clamp(0, 1)
    return scaled, lo, hi
