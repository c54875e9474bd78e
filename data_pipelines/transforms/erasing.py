"""Random erasing (Zhong et al., 2020), as timm and VideoMAE use it: the same box in every frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms.geometry import random_box
from data_pipelines.transforms.normalization import IMAGENET_MEAN, IMAGENET_STD

ERASED_AREA = (0.02, 1 / 3)  # fraction of the frame's area
ERASED_ASPECT = (0.3, 1 / 0.3)  # width / height

Fill = Callable[[tuple[int, ...], np.random.Generator], Tensor]


def random_erase(clip: Tensor, rng: np.random.Generator, mode: str = "pixel") -> Tensor:
    """Overwrite a random box, the same in every frame: uint8 (T, 3, H, W) -> the same.

    A clip is returned unchanged if no random box fits.

    Args:
        clip: RGB frames.
        rng: source of the draws.
        mode: "pixel" fills the box with noise, "zero" with black.

    Raises:
        DataError: an unknown mode.
    """
    fill = erasing_fill(mode)
    box = random_box(clip.shape[-2], clip.shape[-1], ERASED_AREA, ERASED_ASPECT, rng)
    if box is None:
        return clip
    return F.erase(clip, *box, fill((*clip.shape[:2], *box[2:]), rng).to(clip.device))


def erasing_fill(mode: str) -> Fill:
    """The function that fills a box, for "pixel" or "zero"; a DataError for any other mode."""
    if mode not in FILLS:
        raise DataError(f"random_erasing_mode: found {mode!r}, expected {' or '.join(FILLS)}")
    return FILLS[mode]


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Noise, uint8 (T, 3, h, w), different in every frame.

    VideoMAE fills with standard normal noise after ImageNet's normalisation. Here pixels are not yet normalised, so the
    noise has ImageNet's mean and standard deviation, clipped to [0, 255].
    """
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    return noise.mul_(std).add_(mean).round_().clamp_(0, 255).byte()


def _black(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    return torch.zeros((), dtype=torch.uint8)


FILLS: dict[str, Fill] = {"pixel": _noise, "zero": _black}
