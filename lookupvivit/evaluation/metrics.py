"""Classification metrics over plain arrays, exact to the single video.

Logits are arrays (N, K) of N examples and K classes, labels integers (N,) in [0, K).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def top_k_correct(logits: ArrayLike, labels: ArrayLike, k: int) -> np.ndarray:
    """Whether the label is among the k highest logits, bool (N,).

    Tie rule: of equal logits the lower class index ranks higher, so that k = 1 is exactly `numpy.argmax`.
    Where k >= K every example is correct.

    Raises:
        ValueError: shapes do not fit, a label is outside [0, K), k < 1, or a logit is NaN (which compares as
            smaller than nothing and would pass for a correct answer).
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits must be (N, K), found shape {logits.shape}")
    count, classes = logits.shape
    labels = _class_indices(labels, classes, "labels")
    if len(labels) != count:
        raise ValueError(f"{count} rows of logits but {len(labels)} labels")
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    if bad := int(np.isnan(logits).any(axis=1).sum()):
        raise ValueError(f"{bad} of {count} rows of logits hold NaN")
    own = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    tied_before = (logits == own) & (np.arange(classes) < labels[:, None])
    rank = ((logits > own) | tied_before).sum(axis=1)
    return rank < k


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts, int64 (K, K): row = true class, column = predicted class.

    Raises:
        ValueError: lengths differ or an index is outside [0, K).
    """
    labels = _class_indices(labels, num_classes, "labels")
    predictions = _class_indices(predictions, num_classes, "predictions")
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions")
    pairs = labels * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(matrix: ArrayLike) -> float:
    """Accuracy within each true class, averaged over the classes that occur, in [0, 1].

    Args:
        matrix: counts (K, K) of :func:`confusion_matrix`.

    Raises:
        ValueError: the matrix is not square or counts nothing.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a confusion matrix is (K, K), found shape {matrix.shape}")
    totals = matrix.sum(axis=1)
    occurring = totals > 0
    if not occurring.any():
        raise ValueError("mean class accuracy of no examples is undefined")
    return float((matrix.diagonal()[occurring] / totals[occurring]).mean())


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, 1927), as (low, high) in [0, 1].

    Unlike the normal interval it is sensible at 0 % and 100 % and for few examples.

    Raises:
        ValueError: not 0 <= correct <= total with total > 0, or confidence outside (0, 1).
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"a proportion needs 0 <= correct <= total, total > 0, found {correct} of {total}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    shrink = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # Exact ends where rounding would leave 1e-17.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return low, high


def _class_indices(values: ArrayLike, classes: int, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{what} must be (N,), found shape {values.shape}")
    if not np.issubdtype(values.dtype, np.integer) and values.size:
        raise ValueError(f"{what} must be integers, found {values.dtype}")
    outside = values[(values < 0) | (values >= classes)]
    if outside.size:
        raise ValueError(f"{what} must lie in [0, {classes}), found {outside[0]}")
    return values.astype(np.int64)
