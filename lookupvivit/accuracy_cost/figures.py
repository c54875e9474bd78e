"""From points of accuracy and cost to the curves of a picture (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookupvivit.accuracy_cost.record import Point
from lookupvivit.visualization.curves import Curve, cost_picture


def points_picture(points: Sequence[Point], cascade: dict[str, Any] | None, views: str, source: str) -> np.ndarray:
    """Everything about the points in one picture, uint8 (height, width, 3).

    Args:
        points: measured ones, those of the main checkpoint first.
        cascade: what `lookupvivit.accuracy_cost.record.cascade_line` gives.
        views: such as "4x3".
        source: of the videos.
    """
    first = points[0]
    models = ", ".join(dict.fromkeys(point.model for point in points))
    title = f"{models}: {views} views of {first.videos} validation videos"
    how = first.speed_of
    caption = (
        f"{source}. Compressed sizes are t x h x w; bars are 95 % intervals; a star is an individual model's "
        f"own size.\nSpeed: {how['machine']}, {how['precision']}, batches of {how['batch']}, medians of "
        f"{how['rounds']} interleaved rounds."
    )
    names, several = _names({point.checkpoint: None for point in points}), len({p.image_size for p in points}) > 1
    curves = [
        _curve(names[group[0].checkpoint], group, group[0].checkpoint != first.checkpoint, several)
        for group in _lines(points)
    ]
    if cascade:
        # Where it costs as much as the dear size alone, nobody would use it.
        dear = max(point.gflops for point in points if point.size == cascade["large"])
        steps = [step for step in cascade["steps"] if step["gflops"] <= dear]
        marks = _marks([step["share"] for step in steps])
        name = f"cascade {cascade['small']} then {cascade['large']} (share of the videos passed on)"
        curves.append(
            Curve(
                name,
                *([step[key] for step in steps] for key in ("top1", "gflops", "clips_per_second")),
                [f"{100 * s['share']:.0f} %" if i in marks else "" for i, s in enumerate(steps)],
                dashed=True,
            )
        )
    return cost_picture(curves, title, caption)


def _marks(shares: Sequence[float]) -> set[int]:
    """The thresholds that pass on about a tenth, a quarter and a half, where there are such."""
    nearest = {share: min(range(len(shares)), key=lambda i: abs(shares[i] - share)) for share in (0.1, 0.25, 0.5)}
    return {i for share, i in nearest.items() if abs(shares[i] - share) < 0.03}


def _lines(points: Iterable[Point]) -> list[list[Point]]:
    """Points to join: of one checkpoint, image size and t where there are several, else all of a checkpoint."""
    by_checkpoint: dict[str, dict[tuple[int, int | None], list[Point]]] = {}
    for point in points:
        t = point.compressed_size[0] if point.compressed_size else None
        by_checkpoint.setdefault(point.checkpoint, {}).setdefault((point.image_size, t), []).append(point)
    lines = []
    for groups in by_checkpoint.values():
        joined = list(groups.values())
        if max(map(len, joined)) == 1:
            joined = [[point for group in joined for point in group]]
        lines += [sorted(group, key=lambda point: point.gflops) for group in joined]
    return lines


def _names(checkpoints: Iterable[str]) -> dict[str, str]:
    """Every path by as many of its last words as tell it from the others."""
    parts = {path: (Path(path).parent if Path(path).suffix else Path(path)).parts for path in checkpoints}
    names: dict[str, str] = {}
    for words in range(1, max(map(len, parts.values())) + 1):
        names = {path: "/".join(of[-words:]) for path, of in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _curve(name: str, group: Sequence[Point], individual: bool, several_image_sizes: bool) -> Curve:
    texts = [f"{point.size}, {point.image_size} px" if several_image_sizes else point.size for point in group]
    # Away from its own size, an individual model stands at the main one's costs, which are labelled there.
    labels = [text if not individual or point.own_size else "" for text, point in zip(texts, group, strict=True)]
    return Curve(
        name,
        [point.top1 for point in group],
        [point.gflops for point in group],
        [point.clips_per_second for point in group],
        labels,
        [point.top1_interval for point in group],
        [individual and point.own_size for point in group],
    )
