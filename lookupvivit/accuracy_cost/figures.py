"""The figure of accuracy against cost (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookupvivit.accuracy_cost.curves import Curve, cost_figure
from lookupvivit.accuracy_cost.record import Point
from lookupvivit.accuracy_cost.report import frontier

LABELLED_SHARES = (0.1, 0.25, 0.5)  # of a cascade
LABEL_TOLERANCE = 0.03  # of these shares


def points_figure(
    points: Sequence[Point], cascade: dict[str, Any] | None, views: str, source: str, unit: str = "video"
) -> np.ndarray:
    """Draw all points and the cascade, uint8 (height, width, 3).

    Args:
        points: measured points, those of the main checkpoint first.
        cascade: of `lookupvivit.accuracy_cost.report.cascade_report`, or None.
        views: such as "4x3".
        source: of the videos.
        unit: what they are called.
    """
    first = points[0]
    models = ", ".join(dict.fromkeys(point.model for point in points))
    title = f"{models}: {views} views of {first.videos} validation {unit}s"
    speed = first.speed_conditions or {}
    caption = (
        f"{source}. Compressed sizes are t x h x w; bars are 95 % intervals; a star is an individual model's "
        f"own size.\nSpeed: {speed['machine']}, {speed['precision']}, batches of {speed['batch']}, medians of "
        f"{speed['rounds']} interleaved rounds."
    )
    names = _short_names(dict.fromkeys(point.checkpoint for point in points))
    with_image_size = len({point.image_size for point in points}) > 1
    curves = []
    for group in _connected_points(points):
        checkpoint = group[0].checkpoint
        curves.append(_curve(names[checkpoint], group, checkpoint != first.checkpoint, with_image_size))
    if any(point.keep for point in points):  # what several budgets reach together
        curves.append(_frontier_curve(frontier(points)))
    if cascade:
        curves.append(_cascade_curve(points, cascade, unit))
    return cost_figure(curves, title, caption)


def _connected_points(points: Iterable[Point]) -> list[list[Point]]:
    """Group points into lines: by checkpoint, image size, number of frames t of the compressed tokens and kept tokens.

    Without compressed tokens, the share of kept tokens varies along a line. If every group of a checkpoint has a single
    point, all of its points are one line.
    """
    by_checkpoint: dict[str, dict[tuple[object, ...], list[Point]]] = {}
    for point in points:
        key: tuple[object, ...] = point.image_size, point.keep and point.keep.strategy
        if point.compressed_size:
            key = point.image_size, point.compressed_size[0], point.keep
        by_checkpoint.setdefault(point.checkpoint, {}).setdefault(key, []).append(point)
    lines = []
    for groups in by_checkpoint.values():
        connected = list(groups.values())
        if all(len(group) == 1 for group in connected):
            connected = [[point for group in connected for point in group]]
        lines += [sorted(group, key=lambda point: point.gflops) for group in connected]
    return lines


def _short_names(checkpoints: Iterable[str]) -> dict[str, str]:
    """The last parts of each path, as many as are needed to distinguish all paths."""
    parts = {path: (Path(path).parent if Path(path).suffix else Path(path)).parts for path in checkpoints}
    names: dict[str, str] = {}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {path: "/".join(parts[path][-count:]) for path in parts}
        if len(set(names.values())) == len(names):
            break
    return names


def _curve(name: str, group: Sequence[Point], individual: bool, with_image_size: bool) -> Curve:
    labels = []
    for point in group:
        # At sizes of the main checkpoint, an individual one has the same cost, which is labelled there.
        visible = not individual or point.own_size or not point.compressed_size
        label = f"{point.size_name}, {point.image_size} px" if with_image_size else point.size_name
        labels.append(label if visible else "")
    return Curve(
        name=name,
        top1=[point.top1 for point in group],
        gflops=[point.gflops for point in group],
        clips_per_second=[point.speed for point in group],
        labels=labels,
        intervals=[point.top1_interval for point in group],
        stars=[individual and point.own_size for point in group],
    )


def _frontier_curve(best: Sequence[Point]) -> Curve:
    return Curve(
        name="frontier",
        top1=[point.top1 for point in best],
        gflops=[point.gflops for point in best],
        clips_per_second=[point.speed for point in best],
        labels=[""] * len(best),
        dashed=True,
    )


def _cascade_curve(points: Sequence[Point], cascade: dict[str, Any], unit: str) -> Curve:
    """The thresholds of a cascade that cost at most as much as its large size alone."""
    large_gflops = max(point.gflops for point in points if point.size_name == cascade["large"])
    steps = [step for step in cascade["steps"] if step["gflops"] <= large_gflops]
    shares = [step["share"] for step in steps]
    labelled = _nearest(shares, LABELLED_SHARES)
    return Curve(
        name=f"cascade {cascade['small']} then {cascade['large']} (share of the {unit}s at the large size)",
        top1=[step["top1"] for step in steps],
        gflops=[step["gflops"] for step in steps],
        clips_per_second=[step["clips_per_second"] for step in steps],
        labels=[f"{100 * share:.0f} %" if index in labelled else "" for index, share in enumerate(shares)],
        dashed=True,
    )


def _nearest(values: Sequence[float], targets: Iterable[float]) -> set[int]:
    """Indices of the values nearest to each target, within `LABEL_TOLERANCE`."""
    indices = set()
    for target in targets:
        nearest = min(range(len(values)), key=lambda index: abs(values[index] - target))
        if abs(values[nearest] - target) < LABEL_TOLERANCE:
            indices.add(nearest)
    return indices
