"""Random changes of brightness, saturation, contrast and hue (dmvr, processors.py, color_default_augm)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MAX_BRIGHTNESS_SHIFT = 32 / 255  # of pixels in [0, 1]
SATURATION = CONTRAST = (0.6, 1.4)  # ranges of the factors
MAX_HUE_SHIFT = 0.2  # of the whole hue circle
TINY = 1e-30  # avoids 0 / 0


def random_color(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, saturation, contrast and hue, in this order: uint8 (T, 3, H, W) -> the same.

    As in dmvr, brightness is a shift, saturation scales the S of HSV, and contrast scales the distance from the mean
    of each frame and channel. Values are clipped once, before the hue changes, which keeps their range.

    Args:
        clip: RGB frames; all frames change alike.
        rng: source of the draws.
    """
    brightness = rng.uniform(-MAX_BRIGHTNESS_SHIFT, MAX_BRIGHTNESS_SHIFT)
    saturation, contrast = rng.uniform(*SATURATION), rng.uniform(*CONTRAST)
    hue = rng.uniform(-MAX_HUE_SHIFT, MAX_HUE_SHIFT)
    changed = torch.empty_like(clip)
    step = 1 if clip.device.type == "cpu" else len(clip)  # a single frame fits into the CPU's cache
    for frames, changed_frames in zip(clip.split(step), changed.split(step), strict=True):
        video = adjust_saturation(frames.float().div_(255).add_(brightness), saturation)
        mean = video.mean((-2, -1), keepdim=True)
        video = shift_hue(video.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1), hue)
        _copy_bytes(video.mul_(255).round_(), changed_frames)
    return changed


def _copy_bytes(source: Tensor, target: Tensor) -> None:
    """Copy whole numbers from 0 to 255, float32 -> uint8. On the CPU, NumPy converts several times as fast as torch."""
    if target.device.type == "cpu":
        np.copyto(target.numpy(), source.numpy(), casting="unsafe")
    else:
        target.copy_(source)


def adjust_saturation(video: Tensor, factor: float) -> Tensor:
    """Multiply the S of HSV by ``factor``, up to at most 1: float (..., 3, H, W) -> the same.

    With V = max(R, G, B) and S = (V - min) / V, the new value of a channel x is V + (x - V) * S_new / S.
    """
    value, darkest = video.amax(-3, keepdim=True), video.amin(-3, keepdim=True)
    largest_factor = value / (value - darkest).clamp(min=1e-6)  # 1 / S
    return value + (video - value) * largest_factor.clamp(0, factor)


def shift_hue(video: Tensor, shift: float) -> Tensor:
    """Rotate the hue by ``shift`` of the whole circle: float (..., 3, H, W) in [0, 1] -> the same.

    As torchvision's adjust_hue up to rounding, which takes several times as long on a CPU: the way back does not need
    the six sectors of HSV, and comparisons give 0.0 and 1.0 to interpolate with, because selecting by a boolean mask
    costs as much as thirty additions.
    """
    red, green, blue = video.unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    darkest = torch.minimum(torch.minimum(red, green), blue)
    spread = value - darkest

    # RGB -> hue in sixths of the circle. Red decides where several channels are the brightest, then green.
    green_is_brightest = torch.eq(value, green, out=torch.empty_like(value))
    red_is_brightest = torch.eq(value, red, out=torch.empty_like(value))
    hue = (red - green).lerp_(blue - red, green_is_brightest).lerp_(green - blue, red_is_brightest)
    centre = green_is_brightest.mul_(-2).add_(4).mul_(red_is_brightest.neg_().add_(1))  # of the brightest: 0, 2 or 4
    hue.div_(spread.clamp(min=TINY)).add_(centre).add_(6 * shift)
    hue.sub_((hue * (1 / 6)).floor_().mul_(6))

    # Hue -> RGB: each channel is the brightest at most a sixth of the circle from its centre, the darkest beyond two.
    shares = (hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()
    return torch.stack([share.clamp_(0, 1).mul_(spread).add_(darkest) for share in shares], dim=-3)
