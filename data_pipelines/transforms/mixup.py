"""Mixing the samples of a batch and their soft targets. Runs on the batch's own device."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from data_pipelines.io.errors import DataError


def mixup(video: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend every sample with its partner, one weight for the whole batch (scenic, dataset_utils.mixup).

    The weight is drawn from Beta(alpha, alpha), not folded to its larger half; the partner is the batch in
    reverse.

    Args:
        video: floating point (B, ...).
        targets: soft labels (B, K).
        alpha: above 0.
        rng: source of the weight.
    """
    _require_floating_point(video)
    weight = float(rng.beta(alpha, alpha))
    return weight * video + (1 - weight) * video.flip(0), weight * targets + (1 - weight) * targets.flip(0)


def cutmix(video: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Paste a box of its partner into every sample, one box for the whole batch and all frames (Yun et al., 2019).

    The box has the picture's shape, a share of the area drawn from Beta(alpha, alpha), and any pixel as its centre;
    what reaches over the border is lost, and the targets are weighted by what was pasted. The partner is the batch
    in reverse, as for mixup.

    Args:
        video: any type (B, ..., H, W).
        targets: soft labels (B, K).
        alpha: above 0.
        rng: source of the box.
    """
    share = 1 - rng.beta(alpha, alpha)
    rows, columns = (_random_span(side, math.sqrt(share), rng) for side in video.shape[-2:])
    mixed = video.clone()
    mixed[..., rows, columns] = video[..., rows, columns].flip(0)
    pasted = mixed[0, ..., rows, columns].numel() / video[0].numel()
    return mixed, (1 - pasted) * targets + pasted * targets.flip(0)


def mix(
    video: Tensor, targets: Tensor, mixup_alpha: float, cutmix_alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix, with equal chance where both are on, as in timm; an alpha of 0 is off.

    Args:
        video: (B, ..., H, W), floating point if mixup is on.
        targets: soft labels (B, K).
        mixup_alpha: 0 or more.
        cutmix_alpha: 0 or more.
        rng: source of the draws; the choice is drawn only where there is one.
    """
    if mixup_alpha:
        _require_floating_point(video)  # whichever is drawn
    if cutmix_alpha and (not mixup_alpha or rng.random() < 0.5):
        return cutmix(video, targets, cutmix_alpha, rng)
    return mixup(video, targets, mixup_alpha, rng) if mixup_alpha else (video, targets)


def _random_span(side: int, share: float, rng: np.random.Generator) -> slice:
    length = int(side * share)
    start = int(rng.integers(side)) - length // 2
    return slice(max(0, start), start + length)


def _require_floating_point(video: Tensor) -> None:
    if not video.is_floating_point():
        raise DataError(f"mixup: video is {video.dtype}; normalize it to floating point first")
