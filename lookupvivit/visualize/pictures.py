"""Arrays to pictures: uint8 images (H, W, 3) that a person can read (needs matplotlib and Pillow)."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

# Perceptually even from black over red to pale yellow: what is not attended to goes dark, as outside a
# spotlight, and no step is lost on the colour-blind.
COLOUR_MAP = "inferno"
# Of curves and bars: Okabe and Ito's, which the colour-blind tell apart too; without yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DPI = 100
TILE_MIN, TILE_MAX = 144, 288  # shorter and longer side of a shown frame, pixels


def overlay(frames: np.ndarray, maps: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """Maps as colour over frames, uint8 (T, H, W, 3).

    Args:
        frames: uint8 (T, H, W, 3). Shown in grey, so that every hue in the result is the map's.
        maps: (T, H, W) in [0, 1].
        alpha: share of the map's colour, 0 to 1.
    """
    _check(frames, maps)
    grey = frames @ np.array([0.299, 0.587, 0.114])  # (T, H, W), luma of BT.601
    colour = matplotlib.colormaps[COLOUR_MAP](maps)[..., :3] * 255  # (T, H, W, 3)
    return ((1 - alpha) * grey[..., None] + alpha * colour).round().astype(np.uint8)


def attention_sheet(
    frames: np.ndarray,
    maps: np.ndarray,
    lo: float,
    hi: float,
    title: str = "",
    caption: str = "",
    columns_max: int = 8,
) -> np.ndarray:
    """A clip and its attention on one sheet, uint8 (height, width, 3): frames above, maps over them below.

    Args:
        frames: uint8 (T, H, W, 3).
        maps: (T, H, W) in [0, 1].
        lo, hi: attention weights shown as 0 and 1, written at the colour bar.
        title, caption: text above and below, such as class and prediction; long lines are wrapped.
        columns_max: most frames to show; of a longer clip, evenly spaced ones from the first to the last.
    """
    _check(frames, maps)
    count, height, width = maps.shape
    shown = np.linspace(0, count - 1, min(count, max(1, columns_max))).round().astype(int)
    tile_h, tile_w = _tile_size(height, width)
    gap, margin, label, bar = 4, 12, 20, 96
    sheet_w = max(2 * margin + len(shown) * (tile_w + gap) + bar, 480)  # wide enough for text
    title, title_h = _wrapped(title, sheet_w, margin)
    caption, caption_h = _wrapped(caption, sheet_w, margin)
    top = margin + title_h + label
    sheet_h = top + 2 * tile_h + gap + margin + caption_h
    figure = _figure(sheet_w, sheet_h)

    if title:
        figure.text(margin / sheet_w, 1 - margin / sheet_h, title, va="top", fontsize=12)
    if caption:
        figure.text(margin / sheet_w, margin / sheet_h, caption, va="bottom", fontsize=10)
    lefts = [margin + column * (tile_w + gap) for column in range(len(shown))]
    for column, index in enumerate(shown):
        centre = (lefts[column] + tile_w / 2) / sheet_w
        text = f"frame {index}" if column == 0 else f"{index}"
        figure.text(centre, 1 - (top - 5) / sheet_h, text, ha="center", fontsize=9)
    _colour_bar(figure, lefts[-1] + tile_w + gap + 8, top + tile_h + gap, tile_h, lo, hi)
    sheet = _rendered(figure)
    coloured = overlay(frames[shown], maps[shown])
    for left, frame, colour in zip(lefts, frames[shown], coloured, strict=True):
        for y, image in ((top, frame), (top + tile_h + gap, colour)):
            sheet[y : y + tile_h, left : left + tile_w] = _resized(image, tile_h, tile_w)
    return sheet


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


def _check(frames: np.ndarray, maps: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), found {frames.dtype} {frames.shape}")
    if maps.shape != frames.shape[:3]:
        raise ValueError(f"maps must have the frames' shape {frames.shape[:3]}, found {maps.shape}")


def _tile_size(height: int, width: int) -> tuple[int, int]:
    """Size a frame is shown at: small ones enlarged by a whole factor, so that pixels stay square and even."""
    factor: float = -(-TILE_MIN // min(height, width))
    if factor * max(height, width) > TILE_MAX:
        factor = max(1, factor - 1) if max(height, width) <= TILE_MAX else TILE_MAX / max(height, width)
    return round(height * factor), round(width * factor)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    method = Image.Resampling.NEAREST if height >= image.shape[0] else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def _wrapped(text: str, width: int, margin: int) -> tuple[str, int]:
    """Text broken to fit a sheet, at about 9 pixels a letter, and the height it takes."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, (width - 2 * margin) // 9)]
    return "\n".join(lines), 20 * len(lines) + 6 * bool(lines)


def _figure(width: int, height: int) -> Figure:
    # Without pyplot: no global state, no display, safe in threads.
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, x: int, y: int, width: int, height: int) -> matplotlib.axes.Axes:
    """Axes at pixels from the top left, so that an image of that size is drawn one to one."""
    sheet_w, sheet_h = figure.get_size_inches() * DPI
    return figure.add_axes((x / sheet_w, 1 - (y + height) / sheet_h, width / sheet_w, height / sheet_h))


def _colour_bar(figure: Figure, x: int, y: int, height: int, lo: float, hi: float) -> None:
    axes = _axes(figure, x, y, 12, height)
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    # One power of ten for all three numbers: weights of thousands of tokens are small.
    exponent = math.floor(math.log10(hi)) if hi > 0 else 0
    numbers = [f"{value / 10**exponent:.2f}" for value in (hi, (lo + hi) / 2, lo)]
    numbers[0] = f"\u2265 {numbers[0]}"  # the scale may end below the largest weight
    axes.set_yticks([0, 127.5, 255], numbers, fontsize=8)
    axes.set_title(f"attention\nx 1e{exponent}", fontsize=8, loc="left", pad=6)


def _rendered(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
