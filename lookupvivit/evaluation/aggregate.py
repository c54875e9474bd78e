"""Scores recomputed from saved predictions: fewer views, one head, per class. NumPy alone."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from lookupvivit.evaluation.metrics import confusion_matrix, top_k_correct
from lookupvivit.evaluation.predictions import Predictions, PredictionsError

COLUMNS = ("class", "videos", "top1_correct", "top1", "top5_correct", "top5", "predicted", "most_confused_with")


def choose_views(predictions: Predictions, clips: int | None, crops: int | None) -> str:
    """Name of the view subset of a test with so many clips and crops, all there are by default.

    Raises:
        PredictionsError: no such test's views are among the stored ones.
    """
    name = f"{clips or len(predictions.clips)}x{crops or len(predictions.crops)}"
    known = predictions.view_subsets()
    if name not in known:
        raise PredictionsError(
            f"a test with {name} views (clips x crops) reads other frames than these predictions hold; they contain "
            f"the tests with {', '.join(known)}"
        )
    return name


def heads_to_choose(predictions: Predictions) -> tuple[str, ...]:
    """What may be asked for as a head: "both" first, where there are two."""
    return ("both", *predictions.heads) if len(predictions.heads) > 1 else predictions.heads


def per_class(predictions: Predictions, logits: np.ndarray) -> list[dict[str, Any]]:
    """One row of `COLUMNS` per class, in order of the classes; percentages are None for a class without a video.

    Args:
        logits: (N, K) of :meth:`Predictions.video_logits`.
    """
    labels, names = predictions.labels, predictions.class_names
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(names))
    among_five = np.bincount(labels[top_k_correct(logits, labels, 5)], minlength=len(names))
    rows = []
    for label, name in enumerate(names):
        videos, right, five = int(matrix[label].sum()), int(matrix[label, label]), int(among_five[label])
        wrong = np.where(np.arange(len(names)) == label, 0, matrix[label])
        share = (100 * right / videos, 100 * five / videos) if videos else (None, None)
        other = names[wrong.argmax()] if wrong.any() else ""
        values = (name, videos, right, share[0], five, share[1], int(matrix[:, label].sum()), other)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows of :func:`per_class` as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def confused_pairs(predictions: Predictions, logits: np.ndarray, count: int = 10) -> list[dict[str, Any]]:
    """The ``count`` most frequent mistakes, most frequent first: true class, predicted class, videos."""
    names = predictions.class_names
    matrix = confusion_matrix(predictions.labels, logits.argmax(axis=1), len(names))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [{"true": names[i], "predicted": names[j], "videos": int(matrix[i, j])} for i, j in pairs if matrix[i, j]]


def score_table(predictions: Predictions, average: str) -> list[dict[str, Any]]:
    """The scores of every view subset by every head, one dict each; see :meth:`Predictions.summary`."""
    return [
        {"views": views, "head": head, "average": average, **score}
        for head in heads_to_choose(predictions)
        for views, score in predictions.summary(head, average)["views"].items()
    ]


def as_text(scores: list[dict[str, Any]], videos: int) -> str:
    """Entries of :func:`score_table` as a table for people."""
    lines = [f"{'views':>6}  {'head':<10}  {'top-1 %':>8}  {'95 % interval':>14}  {'top-5 %':>8}  {'class mean %':>12}"]
    for score in scores:
        low, high = score["top1_interval"]
        lines.append(
            f"{score['views']:>6}  {score['head']:<10}  {score['top1']:8.2f}  {f'{low:.1f} to {high:.1f}':>14}  "
            f"{score['top5']:8.2f}  {score['mean_class_top1']:12.2f}   ({score['top1_correct']} of {videos})"
        )
    return "\n".join(lines)


def not_scored(facts: dict[str, Any]) -> str:
    """How many videos a test left out, and why; "" if none."""
    broken, missing = len(facts.get("broken_videos", {})), facts.get("missing_videos", 0)
    return ", ".join([f"{broken} broken"] * bool(broken) + [f"{missing} missing"] * bool(missing))
