"""Video to tokens: one linear map per non-overlapping space-time tubelet (Arnab et al., ViViT, section 3.2)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut off at -2 and 2 (jax.nn.initializers)

class TubeletEmbedding(nn.Module):
    """Cut a video into tubelets and embed each one linearly (a Conv3d whose stride is its kernel).

    Args:
        tubelet: (t, h, w) pixels of one tubelet; an image patch has t = 1.
        width: embedding width D.
        channels: colour channels of the input.
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int, channels: int = 3) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.projection = nn.Conv3d(channels, width, kernel_size=tubelet, stride=tubelet)
        # LeCun normal, as flax initialises the parents' convolution: cut off at two deviations and widened by what that
        # takes away, so that the deviation is 1 / sqrt(fan in).
        std = (channels * math.prod(tubelet)) ** -0.5 / TRUNCATED_STD
        nn.init.trunc_normal_(self.projection.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.projection.bias)

    def grid(self, video_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Token grid (t, h, w) of a video of (T, H, W) pixels; ValueError where a tubelet does not fit evenly."""
        if any(size % step or size < step for size, step in zip(video_size, self.tubelet, strict=True)):
            raise ValueError(
                f"a video of (T, H, W) = {tuple(video_size)} cannot be cut into tubelets of {self.tubelet}: "
                "each size must be a positive multiple of the tubelet's"
            )
        t, h, w = (size // step for size, step in zip(video_size, self.tubelet, strict=True))
        return t, h, w

    def forward(self, video: Tensor) -> Tensor:
        """Video (B, C, T, H, W), or image (B, C, H, W) where the tubelet has t = 1, -> (B, t, h, w, D)."""
        if video.dim() == 4:
            if self.tubelet[0] != 1:
                raise ValueError(
                    f"an image (B, 3, H, W) was given to a video model (tubelet {self.tubelet}): use an image variant "
                    "such as lookupvit_b16_5x5, or give a video (B, 3, T, H, W)"
                )
            video = rearrange(video, "b c h w -> b c 1 h w")
        if video.dim() != 5:
            raise ValueError(f"expected a video (B, 3, T, H, W) or an image (B, 3, H, W), found {tuple(video.shape)}")
        self.grid(tuple(video.shape[2:]))
        return torch.movedim(self.projection(video), 1, -1)
