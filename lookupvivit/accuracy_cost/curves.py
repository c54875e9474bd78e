"""Accuracy against cost as a figure (Figures 1 and 5 of the paper); needs matplotlib."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import ScalarFormatter

from lookupvivit.visualization.canvas import PALETTE, new_figure, render

WIDTH, HEIGHT = 1500, 720  # pixels
COSTS = ("gflops", "clips_per_second")  # of the left and of the right plot
MARKER_RADIUS = 4  # pixels

# Candidate offsets of a label from its point, in typographic points, in order of preference: directly above and below
# first; further away only where these are occupied.
DIRECTIONS = ((0, 1), (0, -1), (2, 1), (-2, 1), (2, -1), (-2, -1), (3, 0), (-3, 0))
OFFSETS = [(dx * distance, dy * distance) for distance in (12, 18, 26) for dx, dy in DIRECTIONS]
NUM_ADJACENT = 2  # labels at the first offsets need no line to their point


@dataclass(frozen=True)
class Curve:
    """One line of the figure; its points are joined in the given order.

    Attributes:
        name: in the legend. Curves of the same name share colour and legend entry.
        top1: accuracies in per cent.
        gflops, clips_per_second: costs of the same points; GFLOPs are multiply-adds.
        labels: text next to each point, "" for none.
        intervals: (low, high) of each accuracy in per cent; empty: none are drawn.
        stars: points to mark with a star, such as the size that a model was trained at; empty: none.
        dashed: the line style, for results of several models, such as a cascade.
    """

    name: str
    top1: Sequence[float]
    gflops: Sequence[float]
    clips_per_second: Sequence[float]
    labels: Sequence[str]
    intervals: Sequence[tuple[float, float]] = ()
    stars: Sequence[bool] = ()
    dashed: bool = False

    def costs(self, kind: str) -> Sequence[float]:
        """The costs named ``kind``, one of `COSTS`."""
        return self.gflops if kind == "gflops" else self.clips_per_second


def cost_figure(curves: Sequence[Curve], title: str, caption: str) -> np.ndarray:
    """Draw accuracy against GFLOPs on the left and against clips per second on the right, uint8 (height, width, 3)."""
    figure = new_figure(WIDTH, HEIGHT)
    figure.suptitle(title, x=0.06, y=0.975, ha="left", fontsize=14)
    lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, 200)]
    figure.text(0.06, 0.018, "\n".join(lines), fontsize=9, color="0.35", va="bottom")
    plots = figure.subplots(1, 2, sharey=True)
    bottom = 0.095 + 0.022 * len(lines)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.885, bottom=bottom, wspace=0.05)
    for axes, cost in zip(plots, COSTS, strict=True):
        _draw_curves(axes, curves, cost)
    left, right = plots
    left.set(ylabel="top-1 accuracy, %", xlabel="GFLOPs per view (multiply-adds)")
    right.set(xlabel="clips per second (faster to the right)")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(0.055, 0.945), ncols=4, frameon=False, fontsize=10)
    renderer = _drawn(figure)
    for axes, cost in zip(plots, COSTS, strict=True):
        _add_labels(axes, curves, cost, renderer)
    return render(figure)


def _drawn(figure: Figure) -> RendererAgg:
    """Draw the figure, which fixes the position of every point in pixels, and return the renderer."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return canvas.get_renderer()


def _draw_curves(axes: Axes, curves: Sequence[Curve], cost: str) -> None:
    colors = _colors(curves)
    in_legend: set[str] = set()
    for curve in curves:
        x, color = curve.costs(cost), colors[curve.name]
        for position, (low, high) in zip(x[: len(curve.intervals)], curve.intervals, strict=True):
            axes.plot([position] * 2, [low, high], color=color, alpha=0.25, linewidth=3, solid_capstyle="butt")
        name = "_" if curve.name in in_legend else curve.name  # matplotlib omits "_" from the legend
        in_legend.add(curve.name)
        marker, line = (".", "--") if curve.dashed else ("o", "-")
        axes.plot(x, curve.top1, line, marker=marker, color=color, markersize=6, linewidth=1.8, label=name)
        starred = [index for index, star in enumerate(curve.stars) if star]
        star_x, star_y = [x[index] for index in starred], [curve.top1[index] for index in starred]
        axes.plot(star_x, star_y, "*", markersize=17, color=color, markeredgecolor="white")
    costs = [value for curve in curves for value in curve.costs(cost)]
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.07, y=0.08)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _add_labels(axes: Axes, curves: Sequence[Curve], cost: str, renderer: RendererAgg) -> None:
    """Write the labels where they overlap the fewest points and other labels."""
    colors = _colors(curves)
    points = axes.transData.transform(
        [point for curve in curves for point in zip(curve.costs(cost), curve.top1, strict=True)]
    )
    occupied: list[np.ndarray] = []  # boxes [x0, y0, x1, y1] of the labels so far
    frame = axes.get_window_extent(renderer).get_points().ravel()
    for curve in curves:
        color = colors[curve.name]
        outline = [withStroke(linewidth=2.5, foreground="white")]
        for x, y, text in zip(curve.costs(cost), curve.top1, curve.labels, strict=True):
            if not text:
                continue
            label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", ha="center", va="center")
            label.set(fontsize=9, color=color, path_effects=outline)
            boxes = [_box(label, offset, renderer) for offset in OFFSETS]
            overlaps = [_num_overlaps(box, points, occupied, frame) for box in boxes]
            best = overlaps.index(min(overlaps))
            label.set_position(OFFSETS[best])
            occupied.append(boxes[best])
            if best >= NUM_ADJACENT:
                line = {"arrowstyle": "-", "linewidth": 0.7, "color": color, "shrinkA": 7, "shrinkB": 3}
                axes.annotate("", (x, y), OFFSETS[best], textcoords="offset points", arrowprops=line)


def _box(label: Annotation, offset: tuple[float, float], renderer: RendererAgg) -> np.ndarray:
    """The pixels [x0, y0, x1, y1] that the label covers at ``offset``."""
    label.set_position(offset)
    return label.get_window_extent(renderer).get_points().ravel()


def _num_overlaps(box: np.ndarray, points: np.ndarray, occupied: Sequence[np.ndarray], frame: np.ndarray) -> int:
    """The number of points and labels that a box overlaps, plus 1 if it extends beyond the frame."""
    x0, y0, x1, y1 = box + np.array([-1, -1, 1, 1]) * MARKER_RADIUS
    inside = (points[:, 0] > x0) & (points[:, 0] < x1) & (points[:, 1] > y0) & (points[:, 1] < y1)
    labels = sum(x0 < other[2] and other[0] < x1 and y0 < other[3] and other[1] < y1 for other in occupied)
    beyond = x0 < frame[0] or y0 < frame[1] or x1 > frame[2] or y1 > frame[3]
    return int(inside.sum()) + labels + beyond


def _colors(curves: Sequence[Curve]) -> dict[str, str]:
    """Curve name -> colour."""
    names = dict.fromkeys(curve.name for curve in curves)
    return dict(zip(names, itertools.cycle(PALETTE)))
