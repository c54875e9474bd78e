"""RandAugment for clips, with the operations for video or those for images.

Those for video are ViViT's (scenic, video_ops.py, distort_image_with_randaugment): eleven that keep everything in
its place, and doing nothing. Those for images are the sixteen of AugReg's recipes (big_vision, autoaugment.py),
which also shear, shift and turn the picture. Each operation of a set is drawn with equal chance; the strength is
the same for all. Strengths follow the TensorFlow model garden's `augment.level_to_arg` on a
scale of 10; they go on beyond 10, where posterize and solarize come to nothing. Operations that look at the
picture's statistics (auto-contrast, equalize, contrast) take those of the whole clip, so that brightness
does not flicker from frame to frame. What an image operation leaves empty turns grey; for video, it turns black.

Contrast blends with the mean grey; the model garden's blends with a number of pixels over 256, which is a
slip.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError

CUTOUT_CONST = 40  # half the side of the square at magnitude 10, in pixels
ROTATION = 30  # degrees at magnitude 10
SHEAR = 0.3  # columns per row, or rows per column, at magnitude 10
TRANSLATION = 100  # pixels at magnitude 10
GREY = 128

Operation = Callable[[Tensor, float, np.random.Generator], Tensor]


def rand_augment(
    clip: Tensor, layers: int, magnitude: float, rng: np.random.Generator, operations: str = "video"
) -> Tensor:
    """Apply ``layers`` random operations, the same to every frame: uint8 (T, 3, H, W) -> uint8 (T, 3, H, W).

    Args:
        clip: RGB frames.
        layers: operations in a row.
        magnitude: their strength; 10 is the scale's nominal end, ViViT on Something-Something uses 20.
        rng: source of the draws.
        operations: "video" or "image".

    Raises:
        DataError: there is no such set of operations.
    """
    choices = operation_set(operations)
    for _ in range(layers):
        clip = choices[rng.integers(len(choices))](clip, magnitude / 10, rng)
    return clip


def operation_set(name: str) -> tuple[Operation, ...]:
    """The operations for "video" or "image"; DataError for any other name."""
    if name not in OPERATION_SETS:
        raise DataError(f"rand_augment_set: found {name!r}, must be one of {', '.join(OPERATION_SETS)}")
    return OPERATION_SETS[name]


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


def _cutout(clip: Tensor, strength: float, rng: np.random.Generator, fill: int = 0) -> Tensor:
    """A square of one grey around a random point; what reaches over the border is lost."""
    half = int(CUTOUT_CONST * strength)
    row, column = (int(rng.integers(size)) for size in clip.shape[-2:])
    clip = clip.clone()
    clip[..., max(0, row - half) : row + half, max(0, column - half) : column + half] = fill
    return clip


def _cutout_grey(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _cutout(clip, strength, rng, fill=GREY)


def _rotate(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, angle=_either_way(ROTATION * strength, rng))


def _shear_x(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, shear_x=_either_way(SHEAR * strength, rng))


def _shear_y(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, shear_y=_either_way(SHEAR * strength, rng))


def _translate_x(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, right=_either_way(TRANSLATION * strength, rng))


def _translate_y(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, down=_either_way(TRANSLATION * strength, rng))


def _either_way(size: float, rng: np.random.Generator) -> float:
    return size if rng.random() < 0.5 else -size


def _affine(
    clip: Tensor, angle: float = 0.0, shear_x: float = 0.0, shear_y: float = 0.0, right: float = 0.0, down: float = 0.0
) -> Tensor:
    """Nearest pixel, as in TensorFlow; the picture turns about its centre and is sheared from its corner."""
    shear = [math.degrees(math.atan(shear_x)), math.degrees(math.atan(shear_y))]
    corner = [0.0, 0.0] if any(shear) else None
    return F.affine(clip, angle, [right, down], scale=1.0, shear=shear, fill=GREY, center=corner)


def _enhancement(strength: float) -> float:
    """Blending factor between a degenerate picture (0), the original (1) and beyond."""
    return 1.8 * strength + 0.1


def _as_one_picture(operation: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    frames, channels, height, width = clip.shape
    tall = clip.transpose(0, 1).reshape(channels, frames * height, width)
    return operation(tall).reshape(channels, frames, height, width).transpose(0, 1)


_IN_PLACE: tuple[Operation, ...] = (
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
)
_MOVING: tuple[Operation, ...] = (_rotate, _shear_x, _shear_y, _translate_x, _translate_y)
OPERATION_SETS: dict[str, tuple[Operation, ...]] = {
    "video": (*_IN_PLACE, _cutout, _identity),
    "image": (*_IN_PLACE, _cutout_grey, *_MOVING),
}
