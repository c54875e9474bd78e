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

    The result is bit-identical to torchvision's adjust_hue, which takes four times as long on a CPU: here comparisons
    give 0.0 and 1.0 to interpolate with, because selecting by a boolean mask costs as much as thirty additions.
    """
    red, green, blue = video.unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    saturation = spread / value.clamp(min=TINY)
    spread.clamp_(min=TINY)

    # RGB -> hue in [0, 1). Red decides where several channels are the brightest, then green.
    r, g, b = ((value - channel).div_(spread) for channel in (red, green, blue))
    green_is_brightest = torch.eq(value, green, out=torch.empty_like(value))
    red_is_brightest = torch.eq(value, red, out=torch.empty_like(value))
    hue = (g + 4).sub_(r)  # in sixths of the circle
    hue = hue.lerp_((r + 2).sub_(b), green_is_brightest).lerp_(b.sub_(g), red_is_brightest)
    hue.mul_(1 / 6).add_(1).frac_().add_(shift)
    hue.sub_(hue.floor()).mul_(6)

    # Hue -> RGB. The circle has six sectors; within one, the middle channel rises or falls linearly.
    sector = hue.floor()
    rising = hue.sub_(sector).mul_(saturation)
    darkest = 1 - saturation
    is_odd = (sector * 0.5).frac_().mul_(2)
    middle = (rising + darkest).lerp_(1 - rising, is_odd).mul_(value)
    darkest.mul_(value)
    # Each channel is the brightest in two sectors, where at least 1 is added to the middle value, the darkest in two,
    # where at least 1 is subtracted, and the middle one in the others. Clamping then selects the right value.
    red = (sector - 2.5).abs_().sub_(1.5)
    green, blue = (1.5 - (sector - centre).abs_() for centre in (1.5, 3.5))
    return torch.stack([channel.add_(middle).clamp_(darkest, value) for channel in (red, green, blue)], dim=-3)
