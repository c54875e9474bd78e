"""Classification metrics over arrays, exact to the single example.

Logits are (N, K) for N examples and K classes; labels are integers (N,) in [0, K).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, stdev
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Quantiles of Student's t distribution at 97.5 %, for 1 to 9 degrees of freedom
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def top_k_correct(logits: ArrayLike, labels: ArrayLike, k: int) -> np.ndarray:
    """Whether the label is among the k highest logits, bool (N,).

    Of equal logits, that of the lower class index ranks higher, so that k = 1 agrees with `numpy.argmax`. If k >= K,
    every example is correct.

    Raises:
        ValueError: shapes do not match, a label is outside [0, K), k < 1, or a logit is NaN. (No comparison with NaN is
            true, so such an example would count as correct.)
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits: found shape {logits.shape}, expected (N, K)")
    count, classes = logits.shape
    labels = _class_indices(labels, classes, "labels")
    if len(labels) != count:
        raise ValueError(f"labels: found {len(labels)}, expected {count}, one per row of logits")
    if k < 1:
        raise ValueError(f"k: found {k}, expected at least 1")
    if with_nan := int(np.isnan(logits).any(axis=1).sum()):
        raise ValueError(f"logits: found NaN in {with_nan} of {count} rows")
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    tied_before = (logits == of_label) & (np.arange(classes) < labels[:, None])
    rank = ((logits > of_label) | tied_before).sum(axis=1)
    return rank < k


def reported_ranks(num_classes: int) -> tuple[int, ...]:
    """The k of the top-k accuracies that are reported: 1, and 5 for more than five classes (otherwise it is 100 %)."""
    return (1, 5) if num_classes > 5 else (1,)


def accuracies_text(scores: Mapping[str, float], num_classes: int) -> str:
    """The accuracies ``top1`` and ``top5`` (per cent) of ``scores`` as text, such as "top-1 75.00 %, top-5 99.00 %".

    Where videos may have several classes, the text is that of ``mAP``.
    """
    if "mAP" in scores:
        return f"mAP {scores['mAP']:.2f} %"
    return ", ".join(f"top-{k} {scores[f'top{k}']:.2f} %" for k in reported_ranks(num_classes))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts, int64 (K, K): row = true class, column = predicted class.

    Raises:
        ValueError: the lengths differ, or an index is outside [0, K).
    """
    labels = _class_indices(labels, num_classes, "labels")
    predictions = _class_indices(predictions, num_classes, "predictions")
    if len(labels) != len(predictions):
        raise ValueError(f"predictions: found {len(predictions)}, expected {len(labels)}, one per label")
    pairs = labels * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(matrix: ArrayLike) -> float:
    """Accuracy within each true class, averaged over the classes that occur, in [0, 1].

    Args:
        matrix: counts (K, K) of `confusion_matrix`.

    Raises:
        ValueError: the matrix is not square, or has no counts.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix: found shape {matrix.shape}, expected (K, K)")
    totals = matrix.sum(axis=1)
    occurring = totals > 0
    if not occurring.any():
        raise ValueError("matrix: found no examples, expected at least one")
    return float((matrix.diagonal()[occurring] / totals[occurring]).mean())


def class_scores(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Scores of each class that occurs, by name, from the counts (K, K) of `confusion_matrix`.

    Returns:
        ``class_top1``: ``videos``, their number, and ``top1`` in per cent. ``confusion``: how many videos of a class
        were predicted as which class; pairs that do not occur are omitted.
    """
    occurring = np.flatnonzero(matrix.sum(axis=1)).tolist()
    totals = matrix.sum(axis=1).tolist()
    return {
        "class_top1": {
            class_names[i]: {"videos": totals[i], "top1": 100 * int(matrix[i, i]) / totals[i]} for i in occurring
        },
        "confusion": {
            class_names[i]: {class_names[j]: int(matrix[i, j]) for j in np.flatnonzero(matrix[i]).tolist()}
            for i in occurring
        },
    }


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, 1927): (low, high) in [0, 1].

    Unlike the normal interval, it is valid at 0 % and 100 % and for few examples.

    Raises:
        ValueError: total < 1, correct outside [0, total], or confidence outside (0, 1).
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"found {correct} of {total}, expected 0 <= correct <= total and total > 0")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}, expected a number between 0 and 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    shrink = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # Rounding would leave 1e-17 instead of exact ends.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return low, high


def half_interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of normally distributed values; None for one value."""
    if len(values) < 2:
        return None
    degrees = len(values) - 1
    if degrees <= len(T_QUANTILES):
        quantile = T_QUANTILES[degrees - 1]
    else:  # Cornish and Fisher's expansion, exact to 0.002 from 10 degrees on
        z = NormalDist().inv_cdf(0.975)
        quantile = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return quantile * stdev(values) / math.sqrt(len(values))


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over examples, from resampling them with replacement (Efron, 1979).

    Args:
        values: one row per example, (N, ...). Columns of an example are resampled together.

    Returns:
        Lower and upper ends, each (...). The same values always give the same interval.
    """
    count = len(values)
    times_drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    means = times_drawn @ values.reshape(count, -1) / count  # (resamples, columns)
    ends = np.quantile(means, (0.5 - confidence / 2, 0.5 + confidence / 2), axis=0)
    low, high = ends.reshape(2, *values.shape[1:])
    return low, high


def _class_indices(values: ArrayLike, num_classes: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name}: found shape {values.shape}, expected (N,)")
    if not np.issubdtype(values.dtype, np.integer) and values.size:
        raise ValueError(f"{name}: found {values.dtype}, expected integers")
    outside = values[(values < 0) | (values >= num_classes)]
    if outside.size:
        raise ValueError(f"{name}: found {outside[0]}, expected 0 to {num_classes - 1}")
    return values.astype(np.int64)
