"""Losses of a task, and those of classification with their soft targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TaskLoss:
    """What a task computes from a micro-batch.

    Attributes:
        losses: (S,), one per field of the output in ``engine.module.supervised``; their sum is minimised.
        scores: further scalar tensors by name, means over the micro-batch, which are only logged.
    """

    losses: Tensor
    scores: dict[str, Tensor] = field(default_factory=dict)


def smooth_one_hot(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Smoothed targets (B, K) in float32 from labels (B,): 1 - s + s / K for the label, else s / K, as in scenic."""
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Smoothed targets (B, K) from class ids (B,) or from zeros and ones (B, K), see `smooth_one_hot`."""
    if labels.dim() == 2:
        return labels * (1 - smoothing) + smoothing / num_classes
    return smooth_one_hot(labels, num_classes, smoothing)


def class_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """Weights (K,) of the classes, inverse to their frequency in ``labels`` (N,), so that the labels' mean weight is 1.

    Classes that do not occur have the weight 1.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(np.where(counts > 0, weights, 1.0), dtype=torch.float32)


def softmax_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of -sum_k weights_k targets_k log softmax(logits)_k, in float32; (B, K) and weights (K,)."""
    return F.cross_entropy(logits.float(), targets, weights, reduction="none").mean()


def sigmoid_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of the sum over classes of binary cross-entropies, in float32; both (B, K).

    Every class is a separate yes-or-no question (big_vision, utils.py, sigmoid_xent), so ``targets`` in [0, 1] may be
    mixed, smoothed or name several classes; they need not sum to 1.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").sum(dim=-1).mean()


def logit_distillation(logits: Tensor, teacher: Tensor, temperature: float, independent: bool = False) -> Tensor:
    """Mean over the batch of t^2 KL(p(teacher / t) || p(logits / t)), in float32 (Hinton et al., 2015); both (B, K).

    Args:
        temperature: t. The factor t^2 keeps the size of the gradients.
        independent: p is the sigmoid of each class, and the divergences are summed over the classes; else the softmax.
    """
    logits, teacher = logits.float() / temperature, teacher.float() / temperature
    if independent:
        p = teacher.sigmoid()
        divergence = F.binary_cross_entropy_with_logits(logits, p, reduction="none")
        divergence = divergence - F.binary_cross_entropy_with_logits(teacher, p, reduction="none")
    else:
        p = teacher.log_softmax(dim=-1)
        divergence = F.kl_div(logits.log_softmax(dim=-1), p, reduction="none", log_target=True)
    return temperature**2 * divergence.sum(dim=-1).mean()


def feature_distillation(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 - cos(features, teacher), in float32; both (B, D)."""
    return (1 - F.cosine_similarity(features.float(), teacher.float(), dim=-1)).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}
