"""Accuracy against cost: the points that were computed, kept in one JSON file so that none is computed twice."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import write_json
from lookupvivit.accuracy_cost.cascade import Cascade, expected_cost, sweep, thinned
from lookupvivit.evaluation.metrics import top_k_correct, wilson_interval
from lookupvivit.evaluation.predictions import Predictions, PredictionsError

Size = tuple[int, int, int]  # (t, h, w)
CASCADE_STEPS = 21  # of the line that is kept and drawn


@dataclass
class Point:
    """One checkpoint at one size.

    Attributes:
        checkpoint, model: where its weights are, and what they are weights of.
        compressed_size: (t, h, w), None of a model that has none.
        image_size: side of the square input, pixels.
        own_size: this is the compressed size that the model has by default (of a run without multi-resolution
            training, the one it was trained at).
        of: all that the accuracy depends on besides; a point of something else is computed anew.
        videos, top1_correct, top1, top5, top1_interval: scores as `Predictions.summary` has them, in per cent.
        broken_videos: those that could not be read and are not in the scores.
        gflops: multiply-adds per view, in G. parameters: scalars.
        clips_per_second: views per second, measured as ``speed_of`` says; None until then.
        logits: file of every view's logits, relative to the JSON file.
    """

    checkpoint: str
    model: str
    compressed_size: Size | None
    image_size: int
    own_size: bool
    of: dict[str, Any]
    videos: int
    top1_correct: int
    top1: float
    top5: float
    top1_interval: tuple[float, float]
    broken_videos: int
    gflops: float
    parameters: int
    logits: str
    clips_per_second: float | None = None
    speed_of: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, Size | None, int]:
        return self.checkpoint, self.compressed_size, self.image_size

    @property
    def size(self) -> str:
        """4x3x3, or what stands for it where a model has no compressed tokens."""
        return "x".join(map(str, self.compressed_size)) if self.compressed_size else "all tokens"


def scores(predictions: Predictions, what: str) -> dict[str, Any]:
    """The scores of a `Point` from the logits of all views; PredictionsError, naming ``what``, where one is NaN."""
    videos, logits = len(predictions.labels), predictions.video_logits()
    try:
        correct, among_five = (int(top_k_correct(logits, predictions.labels, k).sum()) for k in (1, 5))
    except ValueError as error:
        raise PredictionsError(f"{what}: {error}") from None
    low, high = wilson_interval(correct, videos)
    return {
        "videos": videos,
        "top1_correct": correct,
        "top1": 100 * correct / videos,
        "top5": 100 * among_five / videos,
        "top1_interval": (100 * low, 100 * high),
    }


class Record:
    """The points in a JSON file; everything is written whole or not at all.

    Raises:
        PredictionsError: the file exists and is not one of these.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.points: dict[tuple[str, Size | None, int], Point] = {}
        if file.is_file():
            try:
                rows = json.loads(file.read_text(encoding="utf-8"))["points"]
                self.points = {point.key: point for point in map(_point, rows)}
            except (ValueError, TypeError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise PredictionsError(f"{file}: holds no points of this tool ({reason}); move it away") from None

    def finished(self, key: tuple[str, Size | None, int], of: dict[str, Any]) -> Point | None:
        """The point, if it was computed of the same and its logits are still there."""
        point = self.points.get(key)
        return point if point and point.of == of and (self.file.parent / point.logits).is_file() else None

    def logits(self, point: Point) -> Predictions:
        return Predictions.load(self.file.parent / point.logits)

    def add(self, point: Point, predictions: Predictions) -> None:
        """Keep a point's logits; :meth:`save` keeps the point."""
        predictions.save(self.file.parent / point.logits)
        self.points[point.key] = point

    def save(self, **more: Any) -> None:
        """Write all points, and ``more`` beside them."""
        contents = {"points": [asdict(point) for point in self.points.values()], **more}
        write_json(self.file, contents)


def save_csv(file: Path, points: Iterable[Point], cascade: dict[str, Any] | None) -> None:
    """One line per point and per threshold of the cascade."""
    lines = [
        [
            "checkpoint",
            "model",
            "compressed_size",
            "image_size",
            "threshold",
            "share_passed_on",
            "top1",
            "top5",
            "videos",
            "gflops_per_view",
            "clips_per_second",
        ]
    ]
    for p in points:
        lines.append(
            [
                p.checkpoint,
                p.model,
                p.size,
                p.image_size,
                "",
                "",
                p.top1,
                p.top5,
                p.videos,
                p.gflops,
                p.clips_per_second,
            ]
        )
    if cascade:
        sizes, common = f"{cascade['small']} then {cascade['large']}", [cascade["checkpoint"], cascade["model"]]
        for step in cascade["steps"]:
            lines.append(
                [
                    *common,
                    sizes,
                    cascade["image_size"],
                    step["threshold"],
                    step["share"],
                    step["top1"],
                    "",
                    cascade["videos"],
                    step["gflops"],
                    step["clips_per_second"],
                ]
            )
    beside = file.with_name(f".{file.name}.tmp")
    with beside.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(lines)
    os.replace(beside, file)


def cascade_line(record: Record, small: Point, large: Point) -> dict[str, Any]:
    """The cascade of two points of one checkpoint, about `CASCADE_STEPS` thresholds of it, and the best of all.

    A view costs the small size and, of the videos passed on, the large one as well; all views of a video go the same
    way, by the softmax of the mean of their logits. Clips per second hold where those passed on fill batches.
    """
    one, other = record.logits(small), record.logits(large)
    # Videos that could be read both times.
    _, first, second = np.intersect1d(one.video_names, other.video_names, return_indices=True)
    whole = sweep(one.video_logits()[first], other.video_logits()[second], one.labels[first])
    videos = len(first)

    def told(cascade: Cascade) -> list[dict[str, float]]:
        gflops = expected_cost(cascade.shares, small.gflops, large.gflops)
        seconds = expected_cost(cascade.shares, 1 / small.clips_per_second, 1 / large.clips_per_second)
        columns = cascade.thresholds, cascade.shares, 100 * cascade.correct / videos, gflops, 1 / seconds
        names = "threshold", "share", "top1", "gflops", "clips_per_second"
        return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]

    best = int(whole.correct.argmax())  # the cheapest of the best
    [highest] = told(Cascade(*(column[[best]] for column in (whole.thresholds, whole.shares, whole.correct))))
    return {
        "checkpoint": small.checkpoint,
        "model": small.model,
        "small": small.size,
        "large": large.size,
        "image_size": small.image_size,
        "videos": videos,
        "steps": told(thinned(whole, CASCADE_STEPS)),
        "best": highest,
    }


def table(points: Sequence[Point]) -> str:
    """The points as a table to read in a terminal."""
    wide = max(len(point.checkpoint) for point in points)
    heads = f"{'checkpoint':{wide}}  {'size':>10}  {'pixels':>6}  {'GFLOPs':>8}  {'clips/s':>8}"
    lines = [f"{heads}  top-1 (95 % interval)"]
    for p in points:
        low, high = p.top1_interval
        lines.append(
            f"{p.checkpoint:{wide}}  {p.size:>10}  {p.image_size:>6}  {p.gflops:8.3f}  "
            f"{p.clips_per_second:8.1f}  {p.top1:.2f} % ({low:.1f} to {high:.1f})"
        )
    return "\n".join(lines)


def _point(row: dict[str, Any]) -> Point:
    if row.keys() != {entry.name for entry in fields(Point)}:
        raise ValueError(f"a point has the keys {', '.join(sorted(row))}")
    size = row["compressed_size"]
    return Point(**{**row, "compressed_size": size and tuple(size), "top1_interval": tuple(row["top1_interval"])})
