"""Figures of an exact size in pixels, rendered to uint8 arrays (H, W, 3).

A figure is created with `new_figure`, filled with `add_axes` and `add_text`, and rendered once with `render`. Images
are pasted into the rendered array, so that they are not resampled. All positions are pixels from the top left corner.
Needs matplotlib and Pillow.
"""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.text import printable

# Colours of lines and bars: Okabe and Ito's palette for colour-blind readers, without yellow, which is pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#202124"  # text
DPI = 100
MAX_TILE_SIDE = 384  # pixels: longer side of a displayed frame


# ----------------------------------------------------------------------------------------------------------------------
# Figures


def new_figure(width: int, height: int) -> Figure:
    """Create a white figure of ``width`` x ``height`` pixels.

    It does not use pyplot, so it has no global state, needs no display and is safe in threads.
    """
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, x: int, y: int, width: int, height: int) -> Axes:
    """Add axes whose plot area has its top left corner at (x, y)."""
    total_width, total_height = _size(figure)
    bottom = 1 - (y + height) / total_height  # matplotlib counts from the bottom
    return figure.add_axes((x / total_width, bottom, width / total_width, height / total_height))


def add_text(
    figure: Figure, x: float, y: float, text: str, *, va: str = "top", color: str = INK, **properties: Any
) -> None:
    """Write ``text`` at (x, y); dollar signs are printed as they are.

    Args:
        figure: of `new_figure`.
        x, y: position of the text's alignment point.
        text: one line or several.
        va: vertical alignment.
        color: of the text.
        properties: further ones of `matplotlib.text.Text`.
    """
    width, height = _size(figure)
    figure.text(x / width, 1 - y / height, text.replace("$", r"\$"), va=va, color=color, **properties)


def render(figure: Figure) -> np.ndarray:
    """Draw the figure and return its pixels, uint8 (height, width, 3)."""
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "the figure was not created by new_figure"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # file names may use scripts that the font lacks
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _size(figure: Figure) -> tuple[float, float]:
    """(width, height) in pixels."""
    width, height = figure.get_size_inches() * figure.dpi
    return width, height


# ----------------------------------------------------------------------------------------------------------------------
# Images and text


def tile_size(image: np.ndarray, min_side: int) -> tuple[int, int]:
    """The (height, width) at which an image (H, W, 3) is displayed.

    Small images are enlarged until their shorter side has ``min_side`` pixels. No side exceeds `MAX_TILE_SIDE`.
    """
    height, width = image.shape[:2]
    factor = min(max(1.0, min_side / min(height, width)), MAX_TILE_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (height, width, 3) with bicubic interpolation."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def wrap_text(text: str, width: int, letter_width: float) -> str:
    """Break the lines of ``text`` so that they fit into ``width`` pixels, at ``letter_width`` pixels per letter."""
    letters = max(8, int(width / letter_width))
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, letters))


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as PNG, atomically; missing folders are created."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
