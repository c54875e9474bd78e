"""Still worlds for the camera to move over: two layers of augmented photographs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WORLD_SIZE = 192  # side of a layer in pixels; a layer repeats as its own mirror image
MIN_CROP = 160  # smallest crop of a photograph, in pixels
CONTRAST_RADIUS = 16  # of the window in which mean and contrast are equalised, in pixels


@dataclass(frozen=True)
class World:
    """A still scene without borders: two layers an octave of scale apart, which alternate as the camera zooms.

    Attributes:
        layers: float (2, 3, WORLD_SIZE, WORLD_SIZE) in [0, 1].
        centres: the camera's position in each layer, (2, 2), x and y in pixels.
    """

    layers: Tensor
    centres: Tensor


def build_world(first: Tensor, second: Tensor, rng: np.random.Generator) -> World:
    """A random world with one photograph, float (3, H, W) in [0, 1], per layer.

    A few photographs replace the variety of real footage. Each is therefore cropped at a random scale, position and
    orientation; its colours are randomly inverted, gamma-corrected and permuted.
    """
    layers = torch.stack([_random_layer(first, rng), _random_layer(second, rng)])
    return World(layers, torch.from_numpy(rng.uniform(0, 2 * WORLD_SIZE, (2, 2))).float())


def _random_layer(photograph: Tensor, rng: np.random.Generator) -> Tensor:
    # Interpolation may overshoot [0, 1], and the gamma correction needs non-negative values.
    layer = _random_crop(photograph, rng).clamp(0, 1)
    if rng.random() < 0.5:
        layer = 1 - layer
    for channel in layer:
        channel.pow_(float(np.exp(rng.uniform(-0.7, 0.7))))
    return _equalise_contrast(layer)[torch.from_numpy(rng.permutation(3))]


def _random_crop(photograph: Tensor, rng: np.random.Generator) -> Tensor:
    short_side = min(photograph.shape[1:])
    size = int(rng.uniform(min(1.0, MIN_CROP / short_side), 1.0) * short_side)
    top, left = (int(rng.integers(n - size + 1)) for n in photograph.shape[1:])
    crop = photograph[None, :, top : top + size, left : left + size]
    crop = F.interpolate(crop, size=(WORLD_SIZE, WORLD_SIZE), mode="bilinear", antialias=True)[0]
    crop = torch.rot90(crop, int(rng.integers(4)), (1, 2))
    return crop.flip(2) if rng.random() < 0.5 else crop


def _equalise_contrast(layer: Tensor) -> Tensor:
    """Give every neighbourhood the same mean and contrast. Motion is invisible over areas without texture."""
    detail = layer - _box_blur(layer)
    contrast = _box_blur(detail.square()).clamp(min=0).sqrt()  # rounding may leave -1e-15 instead of 0
    return (0.5 + 0.2 * detail / (contrast + 0.03)).clamp(0, 1)


def _box_blur(image: Tensor) -> Tensor:
    """Mean over a square window, from a summed-area table."""
    window = 2 * CONTRAST_RADIUS + 1
    padded = F.pad(image, [CONTRAST_RADIUS] * 4, mode="reflect")
    table = F.pad(padded.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = table[:, window:] - table[:, :-window]
    return ((rows[..., window:] - rows[..., :-window]) / window**2).float()
