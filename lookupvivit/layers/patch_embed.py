"""Video to tokens: one linear map per non-overlapping space-time tubelet (Arnab et al., ViViT, section 3.2)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut off at -2 and 2 (jax.nn.initializers)


def as_video(video: Tensor, tubelet: tuple[int, int, int], channels: int = 3) -> Tensor:
    """What a model was called with as a video (B, C, T, H, W); an image (B, C, H, W) is one of a single frame.

    Raises:
        ValueError: bytes instead of numbers in [-1, 1], another order of the axes, or an image where the tubelet spans
            several frames; tells what would be right.
    """
    shape = tuple(video.shape)
    if not video.is_floating_point():
        raise ValueError(
            f"expected a video of floating-point numbers in [-1, 1], found {video.dtype}: of bytes, give "
            "video.float() / 127.5 - 1; of a file, what model.preprocess makes of it"
        )
    if video.dim() == 5 and shape[1] != channels and shape[2] == channels:
        raise ValueError(
            f"expected a video (B, {channels}, T, H, W), found {shape} with the colours third: "
            "give video.transpose(1, 2)"
        )
    if video.dim() == 4 and tubelet[0] != 1:
        raise ValueError(
            f"an image (B, {channels}, H, W) was given to a video model (tubelet {tubelet}), found {shape}: use an "
            f"image variant such as lookupvit_b16_5x5, or give a video (B, {channels}, T, H, W), of one clip clip[None]"
        )
    if video.dim() not in (4, 5) or shape[1] != channels:
        raise ValueError(f"expected a video (B, {channels}, T, H, W) or an image (B, {channels}, H, W), found {shape}")
    return video.unsqueeze(2) if video.dim() == 4 else video


class TubeletProjection(nn.Conv3d):
    """A convolution whose stride is its kernel, computed as what it is: one linear map of every tubelet.

    Convolutions in three dimensions are the slow ones: on a CPU they take twice as long as the product for 2 x 16 x 16
    pixels, and cuDNN had no fast kernel for some GPUs and releases (pytorch#174051, transformers#45750).
    """

    def __init__(self, channels: int, width: int, tubelet: tuple[int, int, int]) -> None:
        super().__init__(channels, width, kernel_size=tubelet, stride=tubelet)

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, t, h, w, D), dense."""
        t, h, w = self.kernel_size
        tubelets = rearrange(video, "b c (nt t) (nh h) (nw w) -> b nt nh nw (c t h w)", t=t, h=h, w=w)
        return F.linear(tubelets, self.weight.flatten(1), self.bias)


class TubeletEmbedding(nn.Module):
    """Cut a video into tubelets and embed each one linearly.

    Args:
        tubelet: (t, h, w) pixels of one tubelet; an image patch has t = 1.
        width: embedding width D.
        channels: colour channels of the input.
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int, channels: int = 3) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.projection = TubeletProjection(channels, width, tubelet)
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
        video = as_video(video, self.tubelet, self.projection.in_channels)
        self.grid(tuple(video.shape[2:]))
        return self.projection(video)
