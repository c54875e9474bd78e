"""A confidence cascade: a cheap size answers first, and a dearer one only where the cheap one is unsure.

Scored from the logits that each of the two gives to the same videos; nothing is run again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lookupvivit.evaluation.metrics import top_k_correct


@dataclass(frozen=True, eq=False)
class Cascade:
    """What a cascade does at S thresholds, from never asking the dear size (share 0) to always (share 1).

    Attributes:
        thresholds: (S,) videos whose confidence lies below are passed on; rising.
        shares: (S,) of the videos that are passed on, in [0, 1].
        correct: (S,) videos that are right in the end.
    """

    thresholds: np.ndarray
    shares: np.ndarray
    correct: np.ndarray


def confidence(logits: ArrayLike) -> np.ndarray:
    """Highest softmax probability of each row, float64 (N,), of logits (N, K)."""
    logits = np.asarray(logits, dtype=np.float64)
    return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def sweep(small: ArrayLike, large: ArrayLike, labels: ArrayLike) -> Cascade:
    """Every threshold that makes a difference: 0, each confidence that occurs but the lowest, and just above all.

    Args:
        small, large: logits (N, K) of the cheap and the dear size, of the same videos in the same order.
        labels: (N,) classes.

    Raises:
        ValueError: shapes do not fit, or a logit is NaN.
    """
    cheap, dear = (top_k_correct(logits, labels, 1) for logits in (small, large))
    sure = confidence(small)
    order = np.argsort(sure, kind="stable")
    # After passing the first n in order of confidence on: what they gain or lose, summed.
    gained = np.concatenate([[0], np.cumsum(dear[order].astype(np.int64) - cheap[order])])
    levels, first = np.unique(sure[order], return_index=True)  # as many lie below a level as come before it
    passed = np.concatenate([first, [len(sure)]])
    thresholds = np.concatenate([[0.0], levels[1:], [np.nextafter(levels[-1], np.inf)]])
    return Cascade(thresholds, passed / len(sure), cheap.sum() + gained[passed])


def expected_cost(shares: ArrayLike, small: float, large: float) -> np.ndarray:
    """Mean cost per video: the cheap size on all, the dear one on those passed on."""
    return small + np.asarray(shares) * large


def thinned(cascade: Cascade, count: int) -> Cascade:
    """At most ``count`` (2 or more) of the thresholds, with about even steps between their shares, both ends kept."""
    wanted = np.linspace(0, 1, count)
    kept = np.unique(np.abs(cascade.shares[None] - wanted[:, None]).argmin(axis=1))
    return Cascade(cascade.thresholds[kept], cascade.shares[kept], cascade.correct[kept])
