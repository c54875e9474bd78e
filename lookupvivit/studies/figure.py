"""Accuracy against GFLOPs, with the interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from textwrap import fill

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from lookupvivit.studies.plan import Study
from lookupvivit.studies.results import Row
from lookupvivit.visualization.canvas import INK, PALETTE, add_axes, add_text, new_figure, render

WIDTH, HEIGHT = 1000, 640  # pixels
LEFT, TOP, RIGHT, BOTTOM = 80, 90, 240, 70
MARKERS = ("o", "s", "^", "D", "v", "P")


def study_figure(study: Study, rows: Sequence[Row]) -> np.ndarray:
    """Draw one curve per group, uint8 (height, width, 3). Filled markers are the models' own sizes."""
    figure = new_figure(WIDTH, HEIGHT)
    add_text(figure, LEFT, 22, study.title, fontsize=14)
    add_text(figure, LEFT, 48, _caption(study, rows), fontsize=9.5, color="0.4")
    axes = add_axes(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    curves: dict[str, list[Row]] = {}
    rows = [row for row in rows if not math.isnan(row.gflops)]
    for row in rows:
        curves.setdefault(study.groups.get(row.variant, row.variant), []).append(row)
    for (name, curve), color, marker in zip(curves.items(), cycle(PALETTE), cycle(MARKERS)):
        for line, style in _lines(curve):
            gflops, top1 = [row.gflops for row in line], [row.top1 for row in line]
            axes.plot(gflops, top1, style, color=color, linewidth=1.2)
        gflops, top1 = [row.gflops for row in curve], [row.top1 for row in curve]
        errors = [row.half_interval or 0 for row in curve]
        axes.errorbar(gflops, top1, errors, fmt="none", color=color, capsize=3, linewidth=1.2)
        faces = [color if row.is_own_size else "white" for row in curve]
        axes.scatter(gflops, top1, s=42, c=faces, edgecolors=color, marker=marker, zorder=3)
        axes.plot([], [], "-", marker=marker, color=color, label=fill(name, 26))  # for the legend
        repeated = [row.gflops for row in curve for _ in row.scores]
        seeds = [score for row in curve for score in row.scores]
        axes.scatter(repeated, seeds, s=20, color=color, edgecolors="white", linewidths=0.7, zorder=2.5)
    scores = [score for row in rows for score in row.scores]
    if scores:  # the interval of a few seeds that differ can exceed what is possible
        axes.set_ylim(max(0, min(scores) - 4), min(100.5, max(scores) + 4))
    axes.set(xlabel="GFLOPs per view (multiply-adds)", ylabel="top-1 accuracy, %")
    if rows and max(row.gflops for row in rows) > 4 * min(row.gflops for row in rows):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9, labelcolor=INK)
    return render(figure)


def _lines(curve: Sequence[Row]) -> list[tuple[list[Row], str]]:
    """What to connect, and in which style: sizes with all tokens, and shares of kept tokens at each of these sizes."""
    lines: dict[tuple[str, str], list[Row]] = {}
    full = [row for row in curve if "@" not in row.compressed_size]
    for row in curve:
        size, _, keep = row.compressed_size.partition("@")
        if keep:
            whole = [other for other in full if other.compressed_size == size]
            lines.setdefault((size, keep.rpartition(":")[0]), whole).append(row)
    styles = [(full, "-"), *((line, ":") for line in lines.values())]
    return [(sorted(line, key=lambda row: row.gflops), style) for line, style in styles]


def _caption(study: Study, rows: Sequence[Row]) -> str:
    seeds = sorted({row.seeds for row in rows})
    runs = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "no"
    return f"mean of {runs} seeds; dots: seeds; bars: 95 % interval; hollow: other sizes than its own"
