"""Reports of finished points: the cascade of two of them, a table, and a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import atomic_write
from lookupvivit.accuracy_cost.cascade import Cascade, expected_cost, sweep_thresholds
from lookupvivit.accuracy_cost.record import Point, Record, tokens_name
from lookupvivit.sizes import TokenSetting

CASCADE_STEPS = 21  # thresholds that are kept and drawn
CSV_COLUMNS = (
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
    "keep",
    "on_frontier",
)


def cascade_report(record: Record, small: Point, large: Point) -> dict[str, Any]:
    """The cascade of two points of one checkpoint: about `CASCADE_STEPS` thresholds, and the best of all thresholds.

    All views of a video take the same path, by the confidence of their mean logits. Clips per second hold if the videos
    that go to the large size fill whole batches.

    Args:
        record: holds the logits of both points.
        small, large: measured points, the cheaper one first.
    """
    small_logits, large_logits = record.load_logits(small), record.load_logits(large)
    # Only videos that could be read for both points.
    _, rows, large_rows = np.intersect1d(small_logits.video_names, large_logits.video_names, return_indices=True)
    cascade = sweep_thresholds(
        small_logits.video_logits()[rows], large_logits.video_logits()[large_rows], small_logits.labels[rows]
    )
    cheapest_best = [int(cascade.correct.argmax())]
    [best] = _steps(cascade.at(cheapest_best), small, large, len(rows))
    return {
        "checkpoint": small.checkpoint,
        "model": small.model,
        "small": small.size_name,
        "large": large.size_name,
        "image_size": small.image_size,
        "videos": len(rows),
        "steps": _steps(cascade.thin(CASCADE_STEPS), small, large, len(rows)),
        "best": best,
    }


def _steps(cascade: Cascade, small: Point, large: Point, num_videos: int) -> list[dict[str, float]]:
    """One entry per threshold, with accuracy in per cent and cost."""
    columns = {
        "threshold": cascade.thresholds,
        "share": cascade.shares,
        "top1": 100 * cascade.correct / num_videos,
        "gflops": expected_cost(cascade.shares, small.gflops, large.gflops),
        "clips_per_second": 1 / expected_cost(cascade.shares, 1 / small.speed, 1 / large.speed),
    }
    return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(cascade.shares))]


def cascade_summary(cascade: dict[str, Any], unit: str = "video") -> str:
    """One line about the best threshold of a `cascade_report`."""
    best = cascade["best"]
    return (
        f"cascade {cascade['small']} then {cascade['large']}: at best {best['top1']:.2f} % with "
        f"{100 * best['share']:.1f} % of the {unit}s at the large size (confidence below {best['threshold']:.4f}), "
        f"{best['gflops']:.3f} GFLOPs, {best['clips_per_second']:.1f} clips/s"
    )


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points, of any checkpoint, that no other one equals in accuracy at a lower or equal cost; cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.gflops, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def table(points: Sequence[Point]) -> str:
    """The points as a text table. GFLOPs are multiply-adds per view."""
    width = max(len(point.checkpoint) for point in points)
    size_width = max(10, *(len(point.size_name) for point in points))
    header = f"{'checkpoint':{width}}  {'size':>{size_width}}  {'pixels':>6}  {'GFLOPs':>8}  {'clips/s':>8}"
    lines = [f"{header}  top-1 (95 % interval)"]
    best = frontier(points)
    for point in points:
        low, high = point.top1_interval
        lines.append(
            f"{point.checkpoint:{width}}  {point.size_name:>{size_width}}  {point.image_size:>6}  {point.gflops:8.3f}  "
            f"{point.speed:8.1f}  {point.top1:.2f} % ({low:.1f} to {high:.1f}){' *' if point in best else ''}"
        )
    lines.append("GFLOPs are multiply-adds per view; *: no other row is as accurate at a lower cost")
    return "\n".join(lines)


def save_csv(file: Path, points: Iterable[Point], cascade: dict[str, Any] | None) -> None:
    """Write one row per point and one per threshold of a `cascade_report`, atomically."""
    points = list(points)
    best = frontier(points)
    rows = [_point_row(point) | {"on_frontier": point in best} for point in points]
    if cascade:
        rows += [_step_row(step, cascade) for step in cascade["steps"]]
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, CSV_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _point_row(point: Point) -> dict[str, Any]:
    return {
        "checkpoint": point.checkpoint,
        "model": point.model,
        "compressed_size": tokens_name(TokenSetting(point.compressed_size)),
        "keep": point.keep or "",
        "image_size": point.image_size,
        "top1": point.top1,
        "top5": point.top5,
        "videos": point.videos,
        "gflops_per_view": point.gflops,
        "clips_per_second": point.clips_per_second,
    }


def _step_row(step: dict[str, float], cascade: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: cascade[name] for name in ("checkpoint", "model", "image_size", "videos")},
        "compressed_size": f"{cascade['small']} then {cascade['large']}",
        "threshold": step["threshold"],
        "share_passed_on": step["share"],
        "top1": step["top1"],
        "gflops_per_view": step["gflops"],
        "clips_per_second": step["clips_per_second"],
    }
