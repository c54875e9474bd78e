"""Scores computed from stored predictions: for fewer views, for one classifier, per class. Needs NumPy only."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.metrics import confusion_matrix, reported_ranks, top_k_correct
from lookupvivit.evaluation.stored_predictions import BOTH, Predictions

CLASS_COLUMNS = (
    "class",
    "videos",
    "top1_correct",
    "top1",
    "top5_correct",
    "top5",
    "predicted",
    "most_confused_with",
)


def find_view_subset(predictions: Predictions, clips: int | None, crops: int | None) -> str:
    """The name of the test with ``clips`` x ``crops`` views, by default all there are.

    Raises:
        PredictionsError: the views of this test are not stored.
    """
    name = f"{clips or len(predictions.clips)}x{crops or len(predictions.crops)}"
    stored = predictions.view_subsets()
    if name not in stored:
        raise PredictionsError(f"views: found no test of {name} (clips x crops), expected one of {', '.join(stored)}")
    return name


def classifier_choices(predictions: Predictions) -> tuple[str, ...]:
    """The names of the classifiers, preceded by "both" if there are several."""
    return (BOTH, *predictions.classifiers) if len(predictions.classifiers) > 1 else predictions.classifiers


def score_table(predictions: Predictions, average: str) -> list[dict[str, Any]]:
    """The scores of every view subset and classifier, one row each; see `Predictions.summary`."""
    return [
        {"views": views, "classifier": classifier, "average": average, **scores}
        for classifier in classifier_choices(predictions)
        for views, scores in predictions.summary(classifier, average)["views"].items()
    ]


def score_table_text(rows: list[dict[str, Any]], videos: int) -> str:
    """Rows of `score_table` as text."""
    top5_title = f"  {'top-5 %':>8}" if "top5" in rows[0] else ""
    lines = [
        f"{'views':>6}  {'classifier':<10}  {'top-1 %':>8}  {'95 % interval':>14}{top5_title}  {'class mean %':>12}"
    ]
    for row in rows:
        low, high = row["top1_interval"]
        interval = f"{low:.1f} to {high:.1f}"
        top5 = f"  {row['top5']:8.2f}" if "top5" in row else ""
        lines.append(
            f"{row['views']:>6}  {row['classifier']:<10}  {row['top1']:8.2f}  {interval:>14}{top5}  "
            f"{row['mean_class_top1']:12.2f}   ({row['top1_correct']} of {videos})"
        )
    return "\n".join(lines)


def class_table(predictions: Predictions, logits: np.ndarray) -> list[dict[str, Any]]:
    """One row of `CLASS_COLUMNS` per class, without top-5 columns for up to five classes.

    Percentages are None for a class without videos.

    Args:
        predictions: of the videos.
        logits: (N, K) of `Predictions.video_logits`.
    """
    labels, names = predictions.labels, predictions.class_names
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(names))
    correct = {
        k: np.bincount(labels[top_k_correct(logits, labels, k)], minlength=len(names)).tolist()
        for k in reported_ranks(len(names))
    }
    rows = []
    for label, name in enumerate(names):
        videos = int(matrix[label].sum())
        confusions = np.where(np.arange(len(names)) == label, 0, matrix[label])
        row: dict[str, Any] = {"class": name, "videos": videos}
        for k, counts in correct.items():
            row[f"top{k}_correct"] = counts[label]
            row[f"top{k}"] = 100 * counts[label] / videos if videos else None
        row["predicted"] = int(matrix[:, label].sum())
        row["most_confused_with"] = names[confusions.argmax()] if confusions.any() else ""
        rows.append(row)
    return rows


def class_table_csv(rows: list[dict[str, Any]]) -> str:
    """Rows of `class_table` as CSV with a header."""
    text = io.StringIO()
    columns = [name for name in CLASS_COLUMNS if name in rows[0]]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def confused_pairs(predictions: Predictions, logits: np.ndarray, count: int = 10) -> list[dict[str, Any]]:
    """The ``count`` most frequent confusions, most frequent first: true class, predicted class, videos."""
    names = predictions.class_names
    matrix = confusion_matrix(predictions.labels, logits.argmax(axis=1), len(names))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [{"true": names[i], "predicted": names[j], "videos": int(matrix[i, j])} for i, j in pairs if matrix[i, j]]


def excluded_videos(facts: dict[str, Any]) -> str:
    """How many videos failed or are missing, and are therefore not scored, such as "1 failed, 3 missing"; or ""."""
    counts = {"failed": len(facts.get("broken_videos", {})), "missing": facts.get("missing_videos", 0)}
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
