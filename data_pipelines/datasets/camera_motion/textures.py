"""Square textures: augmented photographs, and masks that make parts of them transparent."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIN_CROP = 160  # smallest crop of a photograph, in pixels
CONTRAST_WINDOW = 33 / 192  # side of the window in which mean and contrast are equalised, of the texture's side
EDGE = 1.5  # width of a mask's edge in pixels


def photograph_texture(photograph: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Augment a photograph, (3, H, W), into a texture, (3, size, size); all values lie in [0, 1].

    A few photographs replace the variety of real footage. Each is therefore cropped at a random scale and position, its
    contrast is partly equalised, and half of them have their colours permuted or inverted.
    """
    texture = _random_crop(photograph, size, rng).clamp(0, 1)  # interpolation may overshoot
    equalised, permutation = rng.uniform(0.5, 1), rng.permutation(3)
    permute, invert = rng.random(2) < (0.5, 0.25)
    texture = torch.lerp(texture, _equalise_contrast(texture), float(equalised))
    if permute:
        texture = texture[torch.from_numpy(permutation)]
    if invert:
        texture = 1 - texture
    return gamma_corrected(texture, rng)


def gamma_corrected(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Raise each colour channel, dimension -3, to its own random power."""
    common, own = rng.uniform(-0.5, 0.5), rng.uniform(-0.15, 0.15, 3)
    return image ** torch.from_numpy(np.exp(common + own)).float()[:, None, None]


def with_opacity(texture: Tensor, opacity: Tensor) -> Tensor:
    """Join colours, (3, S, S), and an opacity, (S, S), to premultiplied colours and opacity, (4, S, S)."""
    return torch.cat([texture * opacity, opacity[None]])


def random_regions(size: int, rng: np.random.Generator) -> Tensor:
    """Draw the opacity, (size, size), of a layer with holes: irregular regions cover 20 to 40 % of it."""
    coarse = torch.from_numpy(rng.random((1, 1, 7, 7), dtype=np.float32))
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[0, 0]
    threshold = smooth.flatten().kthvalue(int((1 - rng.uniform(0.2, 0.4)) * size**2)).values
    slope = 6 / size  # typical change of the smooth noise per pixel
    return ((smooth - threshold) / (slope * EDGE) + 0.5).clamp(0, 1)


def random_shapes(size: int, rng: np.random.Generator) -> Tensor:
    """Draw the opacity, (size, size), of one to three compact objects with random outlines."""
    opacity = torch.zeros(size, size)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform(0.1, 0.9, 2) * size
        radius = rng.uniform(0.04, 0.11) * size
        waves, phases = rng.uniform(0, (0.35, 0.2, 0.1)), rng.uniform(0, 2 * np.pi, 3)
        y, x = row - float(centre[0]), column - float(centre[1])
        angle, outline = torch.atan2(y, x), torch.ones(size, size)
        for i in range(3):
            outline += float(waves[i]) * torch.sin((i + 2) * angle + float(phases[i]))
        distance = float(radius) * outline - torch.hypot(x, y)
        opacity = torch.maximum(opacity, (distance / EDGE + 0.5).clamp(0, 1))
    return opacity


def _random_crop(photograph: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    short_side = min(photograph.shape[1:])
    side = int(rng.uniform(min(1.0, MIN_CROP / short_side), 1.0) * short_side)
    top, left = (int(rng.integers(n - side + 1)) for n in photograph.shape[1:])
    crop = photograph[None, :, top : top + side, left : left + side]
    return F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]


def _equalise_contrast(texture: Tensor) -> Tensor:
    """Give every neighbourhood the same mean and contrast. Motion is invisible over areas without texture."""
    radius = round(CONTRAST_WINDOW * texture.shape[-1] / 2)
    detail = texture - _box_blur(texture, radius)
    contrast = _box_blur(detail.square(), radius).clamp(min=0).sqrt()  # rounding may leave -1e-15 instead of 0
    return (0.5 + 0.2 * detail / (contrast + 0.01)).clamp(0, 1)


def _box_blur(image: Tensor, radius: int) -> Tensor:
    """Mean over a square window, from a summed-area table."""
    window = 2 * radius + 1
    padded = F.pad(image, [radius] * 4, mode="reflect")
    table = F.pad(padded.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = table[:, window:] - table[:, :-window]
    return ((rows[..., window:] - rows[..., :-window]) / window**2).float()
