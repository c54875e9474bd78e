"""RandAugment for clips, as ViViT uses it (scenic, video_ops.py, distort_image_with_randaugment).

Eleven operations that keep everything in its place, and doing nothing, are drawn with equal chance; the
strength is the same for all. Strengths follow the TensorFlow model garden's `augment.level_to_arg` on a
scale of 10; they go on beyond 10, where posterize and solarize come to nothing. Operations that look at the
picture's statistics (auto-contrast, equalize, contrast) take those of the whole clip, so that brightness
does not flicker from frame to frame.

Contrast blends with the mean grey; the model garden's blends with a number of pixels over 256, which is a
slip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

CUTOUT_CONST = 40  # half the side of the square at magnitude 10, in pixels

Operation = Callable[[Tensor, float, np.random.Generator], Tensor]


def rand_augment(clip: Tensor, layers: int, magnitude: float, rng: np.random.Generator) -> Tensor:
    """Apply ``layers`` random operations, the same to every frame: uint8 (T, 3, H, W) -> uint8 (T, 3, H, W).

    Args:
        clip: RGB frames.
        layers: operations in a row.
        magnitude: their strength; 10 is the scale's nominal end, ViViT on Something-Something uses 20.
        rng: source of the draws.
    """
    for _ in range(layers):
        clip = OPERATIONS[rng.integers(len(OPERATIONS))](clip, magnitude / 10, rng)
    return clip


def _identity(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return clip


def _auto_contrast(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _as_one_picture(F.autocontrast, clip)


def _equalize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _as_one_picture(F.equalize, clip)


def _invert(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.invert(clip)


def _posterize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.posterize(clip, min(8, int(4 * strength)))  # bits kept


def _solarize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return torch.where(clip.short() < int(256 * strength), clip, 255 - clip)


def _solarize_add(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    lifted = (clip.short() + int(110 * strength)).clamp(0, 255).byte()
    return torch.where(clip < 128, lifted, clip)


def _color(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_saturation(clip, _enhancement(strength))


def _contrast(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _as_one_picture(lambda picture: F.adjust_contrast(picture, _enhancement(strength)), clip)


def _brightness(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_brightness(clip, _enhancement(strength))


def _sharpness(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_sharpness(clip, _enhancement(strength))


def _cutout(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """A black square around a random point; what reaches over the border is lost."""
    half = int(CUTOUT_CONST * strength)
    row, column = (int(rng.integers(size)) for size in clip.shape[-2:])
    clip = clip.clone()
    clip[..., max(0, row - half) : row + half, max(0, column - half) : column + half] = 0
    return clip


def _enhancement(strength: float) -> float:
    """Blending factor between a degenerate picture (0), the original (1) and beyond."""
    return 1.8 * strength + 0.1


def _as_one_picture(operation: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    frames, channels, height, width = clip.shape
    tall = clip.transpose(0, 1).reshape(channels, frames * height, width)
    return operation(tall).reshape(channels, frames, height, width).transpose(0, 1)


OPERATIONS: tuple[Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _posterize,
    _solarize,
    _solarize_add,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _cutout,
    _identity,
)
