"""Attention to objects as Markdown and as a figure."""

from __future__ import annotations

from itertools import product

import numpy as np

from lookupvivit.evidence.object_attention import ObjectAttention
from lookupvivit.visualization.canvas import INK, PALETTE, add_axes, add_text, new_figure, render

WIDTH, HEIGHT = 720, 420  # pixels
LEFT, TOP, RIGHT, BOTTOM = 70, 70, 180, 60
SPREAD = 0.09  # distance of the points of one block


def to_markdown(result: ObjectAttention, caption: str) -> str:
    """One row per block; 1 is uniform attention."""
    estimates = result.estimates()
    columns = [(model, condition) for model, conditions in estimates.items() for condition in conditions]
    lines = [f"| block | {' | '.join(f'{model}: {condition}' for model, condition in columns)} |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for block in range(result.ratios.shape[-1]):
        cells = [str(estimates[model][condition][block]) for model, condition in columns]
        lines.append(f"| {block} | {' | '.join(cells)} |")
    moving, frozen = 100 * result.covered.mean(0)
    covered = f"The object covers {moving:.1f} % of a clip while it moves and {frozen:.1f} % frozen."
    return "\n".join([*lines, "", f"{len(result.ratios)} clips. {covered} {caption}.", ""])


def to_figure(result: ObjectAttention, title: str) -> np.ndarray:
    """Attention to the moving and to the frozen object per block, uint8 (height, width, 3)."""
    figure = new_figure(WIDTH, HEIGHT)
    add_text(figure, LEFT, 16, title, fontsize=12)
    caption = f"{len(result.ratios)} clips; bars: 95 % interval (bootstrap over clips)"
    add_text(figure, LEFT, 40, caption, fontsize=9, color="0.4")
    axes = add_axes(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    axes.axhline(1, color="0.6", linewidth=1, linestyle="--")
    estimates = result.estimates()
    series = list(product(estimates, ("moving", "frozen")))
    for i, (model, condition) in enumerate(series):
        means, lows, highs = np.array(estimates[model][condition]).T
        x = np.arange(len(means)) + SPREAD * (i - (len(series) - 1) / 2)
        color, errors = PALETTE[i // 2], [means - lows, highs - means]
        (points, *_) = axes.errorbar(x, means, errors, fmt="o", color=color, capsize=3, label=f"{model}, {condition}")
        points.set_markerfacecolor(color if condition == "moving" else "white")
    axes.set(xlabel="block", ylabel="attention to the object, \u00d7 uniform", xticks=range(result.ratios.shape[-1]))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9, labelcolor=INK)
    return render(figure)
