"""Video to tokens: one linear map per non-overlapping space-time tubelet (Arnab et al., ViViT, section 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.sizes import Size

TRUNCATED_STD = 0.87962566103423978  # std of a standard normal truncated to [-2, 2] (jax.nn.initializers)


def as_video(video: Tensor, tubelet: Size, channels: int = 3) -> Tensor:
    """Check the input of a model and return it as a video (B, C, T, H, W); an image (B, C, H, W) is a single frame.

    Args:
        tubelet: (t, h, w) of the model.
        channels: C.

    Raises:
        ValueError: integers instead of numbers in [-1, 1], another order of the axes, or an image for a model whose
            tubelets span several frames. The message names the conversion that fixes it.
    """
    shape = tuple(video.shape)
    if not video.is_floating_point():
        raise ValueError(
            f"video: found {video.dtype}, expected floating-point numbers in [-1, 1]: pass video.float() / 127.5 - 1, "
            "or for a file what lookupvivit.preprocess_of(model) returns"
        )
    if video.dim() == 5 and shape[1] != channels and shape[2] == channels:
        raise ValueError(
            f"video: found shape {shape} with the channels third, expected (B, {channels}, T, H, W): "
            "pass video.transpose(1, 2)"
        )
    if video.dim() == 4 and tubelet[0] != 1:
        raise ValueError(
            f"video: found shape {shape}, an image for a video model (tubelet {tubelet}), expected "
            f"(B, {channels}, T, H, W): pass clip[None] for a single clip, or use an image variant such as "
            "lookupvit_b16_5x5"
        )
    if video.dim() not in (4, 5) or shape[1] != channels:
        raise ValueError(
            f"video: found shape {shape}, expected a video (B, {channels}, T, H, W) or an image (B, {channels}, H, W)"
        )
    return video.unsqueeze(2) if video.dim() == 4 else video


def tubelet_grid(video_size: Size, tubelet: Size) -> Size:
    """The token grid (t, h, w) of a video.

    Args:
        video_size: (T, H, W), frames and pixels.
        tubelet: (t, h, w), frames and pixels.

    Raises:
        ValueError: a size of the video is not a positive multiple of the tubelet's.
    """
    if any(size % step or size < step for size, step in zip(video_size, tubelet, strict=True)):
        raise ValueError(
            f"video: found (T, H, W) = {tuple(video_size)}, expected positive multiples of the tubelet {tubelet}"
        )
    t, h, w = (size // step for size, step in zip(video_size, tubelet, strict=True))
    return t, h, w


# `torch.fx` records calls of these two as they are: what they do depends on the shape of the video.
torch.fx.wrap("as_video")
torch.fx.wrap("tubelet_grid")


def split_into_tubelets(video: Tensor, tubelet: Size) -> Tensor:
    """Cut a video (B, C, nt t, nh h, nw w) into flat tubelets (B, nt, nh, nw, C t h w), contiguous.

    Two transpositions of five axes replace one of eight: XNNPACK and Core ML support no more than five.
    """
    t, h, w = tubelet
    channels, frames, height, width = video.shape[1:]
    nt, nh, nw = frames // t, height // h, width // w
    # -1 instead of the batch size, as in `lookupvivit.layers.resample`
    video = video.reshape(-1, channels, frames * height, nw, w).permute(0, 2, 4, 3, 1)  # (B, T H, w, nw, C)
    video = video.reshape(-1, t, nh, h * w, nw * channels).permute(0, 2, 4, 1, 3)  # (B nt, nh, nw C, t, h w)
    return video.reshape(-1, nt, nh, nw, channels * t * h * w)


class TubeletProjection(nn.Conv3d):
    """A 3-D convolution, computed as a linear map of every tubelet if its stride is its kernel.

    3-D convolutions are slow: on a CPU they take twice as long as the matrix product for tubelets of 2 x 16 x 16
    pixels, and cuDNN lacked a fast kernel on some GPUs and releases (pytorch#174051, transformers#45750).

    Arguments, weights, inputs and results are those of `nn.Conv3d`, because other libraries treat it as one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, D, t, h, w), with the axes of (B, t, h, w, D) in memory."""
        if self.stride != self.kernel_size or self.groups > 1 or any(self.padding) or max(self.dilation) > 1:
            return super().forward(input)
        t, h, w = self.kernel_size
        tokens = F.linear(split_into_tubelets(input, (t, h, w)), self.weight.flatten(1), self.bias)
        return torch.movedim(tokens, -1, 1)


class EmbeddedVideo(NamedTuple):
    """A video whose tubelets are embedded already. Models with a `TubeletEmbedding` take it in place of a video.

    Attributes:
        tokens: (B, t, h, w, D), what the model's embedding returned, for the whole video or for parts of it in time.
    """

    tokens: Tensor


class TubeletEmbedding(nn.Module):
    """Cut a video into tubelets and embed each one linearly.

    Args:
        tubelet: (t, h, w) of one tubelet, frames and pixels; an image patch has t = 1.
        width: D.
        channels: C of the input.
    """

    def __init__(self, tubelet: Size, width: int, channels: int = 3) -> None:
        super().__init__()
        self.tubelet, self.channels = tubelet, channels
        self.projection = TubeletProjection(channels, width, kernel_size=tubelet, stride=tubelet)
        # LeCun normal, as flax initialises the convolution of ViT and ViViT: truncated at two standard deviations and
        # rescaled, so that the standard deviation is 1 / sqrt(fan in).
        std = (channels * math.prod(tubelet)) ** -0.5 / TRUNCATED_STD
        nn.init.trunc_normal_(self.projection.weight, std=std, a=-2 * std, b=2 * std)
        if self.projection.bias is not None:
            nn.init.zeros_(self.projection.bias)

    def grid(self, video_size: Size) -> Size:
        """The token grid (t, h, w) of a video (T, H, W); raises as :func:`tubelet_grid`."""
        return tubelet_grid(video_size, self.tubelet)

    def forward(self, video: Tensor | EmbeddedVideo) -> Tensor:
        """Video (B, C, T, H, W), or image (B, C, H, W) if the tubelet has t = 1, -> (B, t, h, w, D)."""
        if isinstance(video, EmbeddedVideo):
            return video.tokens
        return torch.movedim(self.projection(self._checked(video)), 1, -1)

    def grid_of(self, video: Tensor) -> Size:
        """The token grid (t, h, w) of the input of `forward`."""
        t, h, w = as_video(video, self.tubelet, self.channels).shape[2:]
        return self.grid((t, h, w))

    def patches(self, video: Tensor) -> Tensor:
        """The tubelets before they are embedded: the input of `forward` -> (B, t, h, w, C t h w)."""
        return split_into_tubelets(self._checked(video), self.tubelet)

    def embed(self, patches: Tensor) -> Tensor:
        """Any number of tubelets (B, N, C t h w) -> (B, N, D)."""
        tubelets = patches.unflatten(-1, (self.channels, -1)).transpose(1, 2)  # (B, C, N, t h w)
        video = tubelets.flatten(2).unflatten(2, (-1, *self.tubelet[1:]))  # (B, C, N t, h, w), one after the other
        return self.projection(video).flatten(2).mT  # (B, D, N, 1, 1) -> (B, N, D)

    def _checked(self, video: Tensor) -> Tensor:
        """The input as (B, C, T, H, W), which consists of whole tubelets."""
        video = as_video(video, self.tubelet, self.channels)
        t, h, w = video.shape[2:]
        self.grid((t, h, w))
        return video
