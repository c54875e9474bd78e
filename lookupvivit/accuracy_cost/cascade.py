"""A confidence cascade: the small size classifies every video, and the large size those of low confidence.

It is scored from stored logits of both sizes for the same videos; no model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lookupvivit.evaluation.metrics import top_k_correct


@dataclass(frozen=True, eq=False)
class Cascade:
    """The results of a cascade at S thresholds, from never using the large size (share 0) to always (share 1).

    Attributes:
        thresholds: (S,) ascending; videos with a confidence below the threshold go to the large size.
        shares: (S,) share of the videos that go to the large size, in [0, 1].
        correct: (S,) number of videos that are classified correctly.
    """

    thresholds: np.ndarray
    shares: np.ndarray
    correct: np.ndarray

    def at(self, indices: Sequence[int] | np.ndarray) -> Cascade:
        """The results at some of the thresholds."""
        return Cascade(self.thresholds[indices], self.shares[indices], self.correct[indices])

    def thin(self, count: int) -> Cascade:
        """At most ``count`` (2 or more) thresholds with roughly evenly spaced shares, the first and last included."""
        targets = np.linspace(0, 1, count)
        nearest = np.abs(self.shares[None] - targets[:, None]).argmin(axis=1)
        return self.at(np.unique(nearest))


def confidence(logits: ArrayLike) -> np.ndarray:
    """Highest softmax probability of each row of logits (N, K), float64 (N,)."""
    logits = np.asarray(logits, dtype=np.float64)
    return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def sweep_thresholds(small: ArrayLike, large: ArrayLike, labels: ArrayLike) -> Cascade:
    """Evaluate the cascade at every threshold with a different result.

    These are 0, every confidence that occurs except the lowest, and the next number above the highest.

    Args:
        small, large: logits (N, K) of the two sizes, for the same videos in the same order.
        labels: (N,) classes.

    Raises:
        ValueError: shapes do not fit, or a logit is NaN.
    """
    small_correct, large_correct = (top_k_correct(logits, labels, 1) for logits in (small, large))
    confidences = confidence(small)
    order = np.argsort(confidences, kind="stable")
    gains = large_correct[order].astype(np.int64) - small_correct[order]
    gain_of_first = np.concatenate([[0], np.cumsum(gains)])  # (N + 1,), if the n least confident go to the large size
    levels, num_below = np.unique(confidences[order], return_index=True)
    num_passed = np.concatenate([num_below, [len(confidences)]])
    thresholds = np.concatenate([[0.0], levels[1:], [np.nextafter(levels[-1], np.inf)]])
    return Cascade(thresholds, num_passed / len(confidences), small_correct.sum() + gain_of_first[num_passed])


def expected_cost(shares: ArrayLike, small: float, large: float) -> np.ndarray:
    """Mean cost per video: the small size for all of them, and the large size for the share that goes to it."""
    return small + np.asarray(shares) * large
