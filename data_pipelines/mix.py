"""Mixing the samples of a batch, and soft targets. Runs on the batch's own device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_pipelines.errors import DataError


def smooth_one_hot(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Smoothed targets, float32 (B, K) from labels (B,): 1 - s + s/K where true, else s/K, as in scenic."""
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


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
    if not video.is_floating_point():
        raise DataError(f"mixup: video is {video.dtype}; normalize it to floating point first")
    weight = float(rng.beta(alpha, alpha))
    return weight * video + (1 - weight) * video.flip(0), weight * targets + (1 - weight) * targets.flip(0)
