"""Accuracy against cost as a picture (needs matplotlib)."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import ScalarFormatter

from lookupvivit.visualization.canvas import COLOURS, _figure, _rendered

WIDTH, HEIGHT = 1500, 720  # pixels
# Around a point, in points of type: right above first, then where there is room.
PLACES = [
    (dx, dy)
    for far in (12, 18, 26)
    for dx, dy in (
        (0, far),
        (0, -far),
        (2 * far, far),
        (-2 * far, far),
        (2 * far, -far),
        (-2 * far, -far),
        (3 * far, 0),
        (-3 * far, 0),
    )
]


@dataclass(frozen=True)
class Curve:
    """One line of the picture, its points in the order they are joined.

    Attributes:
        name: in the legend; curves of one name share colour and entry.
        top1: accuracies, per cent. gflops, clips_per_second: costs.
        labels: beside the points, "" for none.
        intervals: (low, high) of each accuracy, per cent; none are drawn where empty.
        stars: points to set apart, such as the size that a model was trained at; none where empty.
        dashed: for what was not one model's call, such as a cascade.
    """

    name: str
    top1: Sequence[float]
    gflops: Sequence[float]
    clips_per_second: Sequence[float]
    labels: Sequence[str]
    intervals: Sequence[tuple[float, float]] = ()
    stars: Sequence[bool] = ()
    dashed: bool = False


def cost_picture(curves: Sequence[Curve], title: str, caption: str) -> np.ndarray:
    """Accuracy against GFLOPs on the left and against clips per second on the right, uint8 (height, width, 3)."""
    figure = _figure(WIDTH, HEIGHT)
    figure.suptitle(title, x=0.06, y=0.975, ha="left", fontsize=14)
    lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, 200)]
    figure.text(0.06, 0.018, "\n".join(lines), fontsize=9, color="0.35", va="bottom")
    left, right = figure.subplots(1, 2, sharey=True)
    bottom = 0.095 + 0.022 * len(lines)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.885, bottom=bottom, wspace=0.05)
    for axes, cost in ((left, "gflops"), (right, "clips_per_second")):
        _draw(axes, curves, cost)
    left.set(ylabel="top-1 accuracy, %", xlabel="GFLOPs per view (multiply-adds)")
    right.set(xlabel="clips per second (faster to the right)")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(0.055, 0.945), ncols=4, frameon=False, fontsize=10)
    figure.canvas.draw()  # places are in pixels, which are known only now
    for axes, cost in ((left, "gflops"), (right, "clips_per_second")):
        _label(axes, curves, cost)
    return _rendered(figure)


def _draw(axes: Axes, curves: Sequence[Curve], cost: str) -> None:
    colours = _colours(curves)
    told: set[str] = set()
    for curve in curves:
        x, colour = getattr(curve, cost), colours[curve.name]
        for place, (low, high) in zip(x[: len(curve.intervals)], curve.intervals, strict=True):
            axes.plot([place, place], [low, high], color=colour, alpha=0.25, linewidth=3, solid_capstyle="butt")
        name = "_" if curve.name in told else curve.name  # matplotlib leaves "_" out of the legend
        marker, line = (".", "--") if curve.dashed else ("o", "-")
        axes.plot(x, curve.top1, line, marker=marker, color=colour, markersize=6, linewidth=1.8, label=name)
        told.add(curve.name)
        starred = [i for i, star in enumerate(curve.stars) if star]
        axes.plot(
            [x[i] for i in starred],
            [curve.top1[i] for i in starred],
            linestyle="none",
            marker="*",
            markersize=17,
            color=colour,
            markeredgecolor="white",
        )
    costs = [value for curve in curves for value in getattr(curve, cost)]
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.07, y=0.08)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Axes, curves: Sequence[Curve], cost: str) -> None:
    """Write the labels where they cover neither a point nor one another, as far as there is such a place."""
    colours, renderer = _colours(curves), axes.figure.canvas.get_renderer()
    points = [(x, y) for curve in curves for x, y in zip(getattr(curve, cost), curve.top1, strict=True)]
    dots = axes.transData.transform(points)
    taken: list[np.ndarray] = []  # boxes [x0, y0, x1, y1]
    frame = axes.get_window_extent(renderer).get_points().ravel()
    for curve in curves:
        for x, y, text in zip(getattr(curve, cost), curve.top1, curve.labels, strict=True):
            if not text:
                continue
            note = axes.annotate(
                text,
                (x, y),
                (0, 0),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=9,
                color=colours[curve.name],
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
            boxes = [_box(note, place, renderer) for place in PLACES]
            best = min(range(len(PLACES)), key=lambda i: (_covered(boxes[i], dots, taken, frame), i))
            note.set_position(PLACES[best])
            taken.append(boxes[best])
            if best > 1:  # further away or aside: a line says whose it is
                line = {"arrowstyle": "-", "linewidth": 0.7, "color": colours[curve.name], "shrinkA": 7, "shrinkB": 3}
                axes.annotate("", (x, y), PLACES[best], textcoords="offset points", arrowprops=line)


def _box(note: Annotation, place: tuple[float, float], renderer: object) -> np.ndarray:
    note.set_position(place)
    return note.get_window_extent(renderer).get_points().ravel()


def _covered(box: np.ndarray, dots: np.ndarray, taken: Sequence[np.ndarray], frame: np.ndarray) -> int:
    """How many points and labels a box lies over; leaving the frame counts as much as any of them."""
    x0, y0, x1, y1 = box + np.array([-4, -4, 4, 4])  # a marker's radius
    over = int(((dots[:, 0] > x0) & (dots[:, 0] < x1) & (dots[:, 1] > y0) & (dots[:, 1] < y1)).sum())
    over += sum(x0 < other[2] and other[0] < x1 and y0 < other[3] and other[1] < y1 for other in taken)
    return over + (x0 < frame[0] or y0 < frame[1] or x1 > frame[2] or y1 > frame[3])


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    names = dict.fromkeys(curve.name for curve in curves)
    return dict(zip(names, itertools.cycle(COLOURS)))
