"""RandAugment for clips (Cubuk et al., 2020), with operations for video or for images.

The video set is ViViT's (scenic, video_ops.py, distort_image_with_randaugment): eleven operations that do not move
pixels, and the identity. The image set is that of AugReg's recipes (big_vision, autoaugment.py): sixteen operations,
among them shear, translation and rotation. Operations are drawn uniformly and applied with the same magnitude.

Magnitudes follow TensorFlow's model garden (augment.py, level_to_arg), on a nominal scale up to 10. They may exceed 10;
posterize and solarize then have no effect. Operations that depend on image statistics (auto-contrast, equalize,
contrast) use those of the whole clip, so that its brightness does not flicker. Image operations fill empty areas with
grey; the video set's cutout fills with black.

One deliberate difference: contrast blends with the mean grey value. The model garden blends with a number of pixels
divided by 256, which is a bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError

# Effects at magnitude 10
CUTOUT = 40  # half the side of the square, pixels
ROTATION = 30  # degrees
SHEAR = 0.3  # columns per row, or rows per column
TRANSLATION = 100  # pixels
GREY = 128

# clip uint8 (T, 3, H, W), strength (magnitude / 10) and source of randomness -> clip of the same shape
Operation = Callable[[Tensor, float, np.random.Generator], Tensor]


def rand_augment(
    clip: Tensor, layers: int, magnitude: float, rng: np.random.Generator, operations: str = "video"
) -> Tensor:
    """Apply ``layers`` random operations in sequence, the same to every frame: uint8 (T, 3, H, W) -> the same.

    Args:
        clip: RGB frames.
        layers: number of operations.
        magnitude: their strength; the nominal maximum is 10, ViViT uses 20 on Something-Something.
        rng: source of the draws.
        operations: "video" or "image".

    Raises:
        DataError: an unknown set of operations.
    """
    choices = operation_set(operations)
    for _ in range(layers):
        operation = choices[rng.integers(len(choices))]
        clip = operation(clip, magnitude / 10, rng)
    return clip


def operation_set(name: str) -> tuple[Operation, ...]:
    """The operations of "video" or "image"; a DataError for any other name."""
    if name not in OPERATION_SETS:
        raise DataError(f"rand_augment_set: found {name!r}, expected {' or '.join(OPERATION_SETS)}")
    return OPERATION_SETS[name]


# ----------------------------------------------------------------------------------------------------------------------
# Operations that change colours


def _identity(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return clip


def _auto_contrast(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _on_whole_clip(F.autocontrast, clip)


def _equalize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _on_whole_clip(F.equalize, clip)


def _invert(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.invert(clip)


def _posterize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    num_bits = min(8, int(4 * strength))
    return F.posterize(clip, num_bits)


def _solarize(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return torch.where(clip.short() < int(256 * strength), clip, 255 - clip)


def _solarize_add(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    brighter = (clip.short() + int(110 * strength)).clamp(0, 255).byte()
    return torch.where(clip < 128, brighter, clip)


def _color(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_saturation(clip, _blending_factor(strength))


def _contrast(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _on_whole_clip(lambda image: F.adjust_contrast(image, _blending_factor(strength)), clip)


def _brightness(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_brightness(clip, _blending_factor(strength))


def _sharpness(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return F.adjust_sharpness(clip, _blending_factor(strength))


def _blending_factor(strength: float) -> float:
    """Weight of the original in a blend with its degenerate version; above 1, the blend extrapolates."""
    return 1.8 * strength + 0.1


def _on_whole_clip(operation: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Apply an image operation to all frames as one tall image, so that they share its statistics."""
    frames, channels, height, width = clip.shape
    tall = clip.transpose(0, 1).reshape(channels, frames * height, width)
    return operation(tall).reshape(channels, frames, height, width).transpose(0, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Operations that erase or move pixels


def _cutout(clip: Tensor, strength: float, rng: np.random.Generator, fill: int = 0) -> Tensor:
    """Fill a square around a random pixel; the part beyond the border is cut off."""
    half = int(CUTOUT * strength)
    row, column = (int(rng.integers(size)) for size in clip.shape[-2:])
    clip = clip.clone()
    clip[..., max(0, row - half) : row + half, max(0, column - half) : column + half] = fill
    return clip


def _cutout_grey(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _cutout(clip, strength, rng, fill=GREY)


def _rotate(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, angle=_random_sign(rng) * ROTATION * strength)


def _shear_x(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, shear_x=_random_sign(rng) * SHEAR * strength)


def _shear_y(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, shear_y=_random_sign(rng) * SHEAR * strength)


def _translate_x(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, right=_random_sign(rng) * TRANSLATION * strength)


def _translate_y(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return _affine(clip, down=_random_sign(rng) * TRANSLATION * strength)


def _random_sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _affine(
    clip: Tensor, angle: float = 0.0, shear_x: float = 0.0, shear_y: float = 0.0, right: float = 0.0, down: float = 0.0
) -> Tensor:
    """Rotate about the centre, shear from the top left corner, or translate; nearest neighbour, as in TensorFlow.

    Args:
        angle: degrees, clockwise.
        shear_x: columns per row.
        shear_y: rows per column.
        right, down: pixels.
    """
    shear = [math.degrees(math.atan(shear_x)), math.degrees(math.atan(shear_y))]
    corner = [0.0, 0.0] if any(shear) else None
    return F.affine(clip, angle, [right, down], scale=1.0, shear=shear, fill=GREY, center=corner)


# ----------------------------------------------------------------------------------------------------------------------

# The order matters: it determines which operation a draw selects.
_COLOR_OPERATIONS: tuple[Operation, ...] = (
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
_GEOMETRIC_OPERATIONS: tuple[Operation, ...] = (_rotate, _shear_x, _shear_y, _translate_x, _translate_y)
OPERATION_SETS: dict[str, tuple[Operation, ...]] = {
    "video": (*_COLOR_OPERATIONS, _cutout, _identity),
    "image": (*_COLOR_OPERATIONS, _cutout_grey, *_GEOMETRIC_OPERATIONS),
}
