"""Mixup and CutMix: blend the samples of a batch and their soft targets, on the batch's own device.

Every sample is mixed with its partner, the sample at the same place in the reversed batch.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from data_pipelines.io.errors import DataError


def mix(
    video: Tensor, targets: Tensor, mixup_alpha: float, cutmix_alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Apply mixup or CutMix. With both enabled, each has probability 1/2, as in timm.

    Args:
        video: (B, ..., H, W); floating point if mixup is enabled.
        targets: soft targets (B, K).
        mixup_alpha: parameter of mixup's Beta distribution; 0 disables it.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 disables it.
        rng: source of the draws. The choice between the two is drawn only if both are enabled.

    Raises:
        DataError: mixup is enabled and ``video`` is not floating point.
    """
    if mixup_alpha:
        _require_floating_point(video)  # also if CutMix is drawn, so that the error does not depend on chance
    if cutmix_alpha and (not mixup_alpha or rng.random() < 0.5):
        return cutmix(video, targets, cutmix_alpha, rng)
    if mixup_alpha:
        return mixup(video, targets, mixup_alpha, rng)
    return video, targets


def mixup(video: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend every sample with its partner, with one weight for the whole batch (scenic, dataset_utils.mixup).

    The weight is drawn from Beta(alpha, alpha). It may be below 1/2.

    Args:
        video: floating point (B, ...).
        targets: soft targets (B, K).
        alpha: above 0.
        rng: source of the weight.

    Raises:
        DataError: ``video`` is not floating point.
    """
    _require_floating_point(video)
    weight = float(rng.beta(alpha, alpha))
    return weight * video + (1 - weight) * video.flip(0), weight * targets + (1 - weight) * targets.flip(0)


def cutmix(video: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Paste a box of its partner into every sample; one box for the whole batch and all frames (Yun et al., 2019).

    The box has the aspect of the frame and is centred on a random pixel. A fraction 1 - Beta(alpha, alpha) of the
    frame's area is drawn for it; the part beyond the border is cut off. Targets are weighted by the pasted area.

    Args:
        video: any dtype (B, ..., H, W).
        targets: soft targets (B, K).
        alpha: above 0.
        rng: source of the box.
    """
    scale = math.sqrt(1 - rng.beta(alpha, alpha))
    rows = _random_span(video.shape[-2], scale, rng)
    columns = _random_span(video.shape[-1], scale, rng)
    mixed = video.clone()
    mixed[..., rows, columns] = video[..., rows, columns].flip(0)
    pasted = mixed[0, ..., rows, columns].numel() / video[0].numel()
    return mixed, (1 - pasted) * targets + pasted * targets.flip(0)


def _random_span(side: int, scale: float, rng: np.random.Generator) -> slice:
    """A span of ``scale`` times ``side`` around a random pixel; it may begin or end beyond the border."""
    length = int(side * scale)
    start = int(rng.integers(side)) - length // 2
    return slice(max(0, start), start + length)


def _require_floating_point(video: Tensor) -> None:
    if not video.is_floating_point():
        raise DataError(f"video: found {video.dtype}, expected normalised floating point values for mixup")
