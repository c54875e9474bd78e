"""A confusion matrix as a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from data_pipelines.io.text import printable
from lookupvivit.visualization.canvas import add_axes, new_figure, render

MAX_LABELLED_CLASSES = 20  # class names and counts of more classes would not be legible
LETTER_WIDTH = 7  # pixels


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> np.ndarray:
    """Draw a confusion matrix, uint8 (height, width, 3).

    The shade of a cell is its share of the row, that is, of the videos of one true class. Matrices of up to
    `MAX_LABELLED_CLASSES` classes have class names and counts. In larger ones, the shade is the square root of the
    share, so that rare confusions are visible.

    Args:
        matrix: counts (K, K), row = true class, column = predicted class.
        class_names: K names.
        title: in front of the accuracy.

    Raises:
        ValueError: the number of names is not K.
    """
    matrix = np.asarray(matrix)
    classes = len(class_names)
    if matrix.shape != (classes, classes):
        raise ValueError(
            f"matrix: found shape {matrix.shape}, expected ({classes}, {classes}) for {classes} class names"
        )
    labelled = classes <= MAX_LABELLED_CLASSES
    names = [textwrap.shorten(printable(name), 48, placeholder=" …") for name in class_names]
    label_width = 40 + LETTER_WIDTH * max(map(len, names), default=0) if labelled else 70
    cell = max(44, 320 // max(classes, 1)) if labelled else max(2, 800 // classes)
    side, top = cell * classes, 40
    figure = new_figure(label_width + side + 110, top + side + label_width)
    axes = add_axes(figure, label_width, top, side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shade = PowerNorm(1 if labelled else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=shade, aspect="auto", interpolation="nearest")
    if labelled:
        axes.set_xticks(range(classes), names, rotation=90, fontsize=9)
        axes.set_yticks(range(classes), names, fontsize=9)
        _write_counts(axes, matrix, shares)
    axes.set(xlabel="predicted class", ylabel="true class")
    total, correct = int(matrix.sum()), int(matrix.trace())
    prefix = f"{printable(title)}: " if title else ""
    axes.set_title(f"{prefix}{correct} of {total} correct ({100 * correct / max(total, 1):.1f} %)", fontsize=11)
    colorbar_axes = add_axes(figure, label_width + side + 16, top, 14, side)
    figure.colorbar(image, cax=colorbar_axes, label="share of the true class")
    return render(figure)


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(matrix > 0):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=9, color=color)
