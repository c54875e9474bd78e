"""A canvas of exact pixels, and what is drawn of a test: uint8 images (H, W, 3) (needs matplotlib and Pillow)."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

# Of curves and bars: Okabe and Ito's, which the colour-blind tell apart too; without yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DPI = 100
INK = "#202124"
TILE_MAX = 384  # pixels: longer side of a shown frame


def confusion_picture(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """A confusion matrix as an image, uint8 (height, width, 3).

    Shades are shares of each row (the videos of one true class). Up to 20 classes, counts and names are written
    in; beyond that only shades are legible, and follow the square root so that rare confusions show.

    Args:
        matrix: counts (K, K), row = true class, column = predicted class.
        class_names: K names.
    """
    matrix = np.asarray(matrix)
    classes = len(class_names)
    if matrix.shape != (classes, classes):
        raise ValueError(f"{classes} class names but a matrix of shape {matrix.shape}")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    detailed = classes <= 20
    cell = max(44, 320 // max(classes, 1)) if detailed else max(2, 800 // classes)
    names = [textwrap.shorten(name, 48, placeholder=" …") for name in class_names]
    # Room for names, at about 7 pixels a letter.
    label = 40 + 7 * max(map(len, names), default=0) if detailed else 70
    side = cell * classes
    figure = _figure(label + side + 110, 40 + side + label)
    axes = _axes(figure, label, 40, side, side)
    shade = PowerNorm(1 if detailed else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=shade, aspect="auto", interpolation="nearest")
    if detailed:
        axes.set_xticks(range(classes), names, rotation=90, fontsize=9)
        axes.set_yticks(range(classes), names, fontsize=9)
        for row, column in np.argwhere(matrix > 0):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=9, color=ink)
    axes.set(xlabel="predicted class", ylabel="true class")
    total, correct = int(matrix.sum()), int(matrix.trace())
    axes.set_title(f"{correct} of {total} correct ({100 * correct / max(total, 1):.1f} %)", fontsize=11)
    bar = _axes(figure, label + side + 16, 40, 14, side)
    figure.colorbar(image, cax=bar, label="share of the true class")
    return _rendered(figure)


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as PNG; folders are made, and the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    Image.fromarray(image).save(beside, format="PNG")
    os.replace(beside, path)


def _figure(width: int, height: int) -> Figure:
    """A white figure of so many pixels."""
    # Without pyplot: no global state, no display, safe in threads.
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, x: int, y: int, width: int, height: int) -> Axes:
    """Axes at pixels from the top left, so that an image of that size is drawn one to one."""
    sheet_w, sheet_h = figure.get_size_inches() * DPI
    return figure.add_axes((x / sheet_w, 1 - (y + height) / sheet_h, width / sheet_w, height / sheet_h))


def _text(figure: Figure, x: float, y: float, text: str, va: str = "top", color: str = INK, **style: object) -> None:
    """Text at pixels from the top left."""
    width, height = figure.get_size_inches() * figure.dpi
    figure.text(x / width, 1 - y / height, text.replace("$", r"\$"), va=va, color=color, **style)


def _rendered(figure: Figure) -> np.ndarray:
    """The figure's pixels, uint8 (height, width, 3)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name may be in any script; boxes stand for the letters
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _tile_size(height: int, width: int, shortest: int) -> tuple[int, int]:
    """The size a frame is shown at: the shorter side enlarged to ``shortest``, the longer one within TILE_MAX."""
    factor = min(max(1.0, shortest / min(height, width)), TILE_MAX / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
