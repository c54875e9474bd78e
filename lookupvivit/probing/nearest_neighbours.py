"""Classification by the nearest neighbours among training features, as in DINO (Caron et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

TEMPERATURE = 0.07
CHUNK = 1024  # test examples whose similarities are in memory at a time


def neighbour_votes(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    num_classes: int,
    counts: Sequence[int],
    temperature: float = TEMPERATURE,
    device: torch.device | str = "cpu",
) -> dict[int, Tensor]:
    """Let the k nearest training examples vote for their classes, with weights exp(cosine similarity / temperature).

    Args:
        train, test: features (N, D) and (M, D).
        labels: (N,) in [0, num_classes).
        num_classes: K.
        counts: several k; one above N counts as N.

    Returns:
        For each k the votes, float64 (M, K) on the CPU; the highest one is the prediction.
    """
    inputs, examples = _normalised(test, device), _normalised(train, device)
    classes = torch.as_tensor(labels, dtype=torch.int64, device=device)
    votes: dict[int, list[Tensor]] = {count: [] for count in counts}
    for chunk in inputs.split(CHUNK):
        nearest = (chunk @ examples.T).topk(min(max(counts), len(examples)))  # (m, max k), nearest first
        weights, voted = (nearest.values / temperature).exp(), classes[nearest.indices]
        for count, parts in votes.items():
            zeros = torch.zeros(len(chunk), num_classes, dtype=torch.float64, device=device)
            parts.append(zeros.scatter_add(1, voted[:, :count], weights[:, :count]).cpu())
    return {count: torch.cat(parts) for count, parts in votes.items()}


def _normalised(features: ArrayLike, device: torch.device | str) -> Tensor:
    """Features of unit length, float64 (N, D)."""
    return torch.nn.functional.normalize(torch.as_tensor(features, dtype=torch.float64, device=device), dim=1)
