"""Scores of videos that may have any number of classes: average precision, computed by class.

Scores are (N, K) for N examples and K classes, higher for more likely ones, such as logits; membership is bool (N, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.io.text import one_line


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of one class: the mean, over its examples, of the precision at the score of each.

    Precision at a score counts all examples with that score or a higher one, so that the order of equal scores does not
    matter (scikit-learn's ``average_precision_score``). NaN for a class without examples.

    Args:
        scores: (N,), without NaN.
        positive: bool (N,).
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positive[order])
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each run of equal scores
    precision = hits[last] / (last + 1)
    found = np.diff(hits[last], prepend=0)  # examples of the class within the run
    return float((precision * found).sum() / hits[-1])


def average_precisions(scores: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """`average_precision` of every class, (K,)."""
    return np.array([average_precision(scores[:, k], membership[:, k]) for k in range(scores.shape[1])])


def multi_label_scores(scores: np.ndarray, membership: np.ndarray) -> dict[str, Any]:
    """``mAP`` in per cent, the mean average precision of the classes that occur, and their number.

    Raises:
        ValueError: no class occurs.
    """
    if not membership.any():
        raise ValueError("labels: found none, expected a video of at least one class")
    values = average_precisions(scores, membership)
    return {"mAP": 100 * float(np.nanmean(values)), "classes_with_videos": int(np.isfinite(values).sum())}


def class_average_precisions(
    scores: np.ndarray, membership: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """``class_ap``: number of ``videos`` and ``ap`` in per cent of each class that occurs, by name."""
    values, totals = average_precisions(scores, membership), membership.sum(axis=0)
    occurring = np.flatnonzero(totals).tolist()
    return {"class_ap": {class_names[k]: {"videos": int(totals[k]), "ap": 100 * float(values[k])} for k in occurring}}


def lowest_text(scores: np.ndarray, membership: np.ndarray, class_names: Sequence[str], count: int = 5) -> str:
    """The ``count`` classes with the lowest average precision on a line, lowest first."""
    entries = class_average_precisions(scores, membership, class_names)["class_ap"].items()
    lowest = sorted(entries, key=lambda entry: entry[1]["ap"])[:count]
    return one_line("lowest AP: " + ", ".join(f"{name} {entry['ap']:.1f} %" for name, entry in lowest))
