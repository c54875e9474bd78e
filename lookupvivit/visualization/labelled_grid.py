"""Tiles in rows and columns, with column headers, row labels and one colour bar per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookupvivit.visualization.canvas import add_axes, add_text, new_figure, render, wrap_text

GAP, MARGIN = 4, 14  # pixels between tiles, and around the grid
LABEL_WIDTH, COLORBAR_WIDTH, MIN_WIDTH = 170, 70, 560  # pixels
LINE_HEIGHT, TITLE_LINE_HEIGHT = 15, 21  # pixels


class GridRow(NamedTuple):
    """One row of a grid.

    Attributes:
        label: text to the left of the tiles; its first line is bold.
        tiles: uint8 (H, W, 3), all of one size; None leaves a place empty.
        scale: values at the two ends of the row's colour bar; None: no colour bar.
    """

    label: str
    tiles: Sequence[np.ndarray | None]
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Layout:
    """Positions in a grid, in pixels from the top left corner."""

    tile_height: int
    tile_width: int
    left: int  # of the first column
    top: int  # of the first row
    colorbar_left: int
    width: int
    height: int

    def x(self, column: int) -> int:
        return self.left + column * (self.tile_width + GAP)

    def y(self, row: int) -> int:
        return self.top + row * (self.tile_height + GAP)


def draw_grid(
    title: str, headers: Sequence[str], rows: Sequence[GridRow], colormap: str, colorbar_label: str
) -> np.ndarray:
    """Draw rows of tiles, uint8 (height, width, 3); the tiles' own pixels are unchanged.

    Args:
        title: text above the grid; long lines are wrapped.
        headers: text above each column.
        rows: from top to bottom. At least one tile must exist.
        colormap: matplotlib's name of the colours that the scales refer to.
        colorbar_label: text above the colour bars.
    """
    tile_height, tile_width = next(tile for row in rows for tile in row.tiles if tile is not None).shape[:2]
    headers = [wrap_text(header, tile_width, 7) for header in headers]
    left = MARGIN + LABEL_WIDTH
    colorbar_left = left + len(headers) * (tile_width + GAP)
    width = max(colorbar_left + COLORBAR_WIDTH + MARGIN, MIN_WIDTH)
    title = wrap_text(title, width - 2 * MARGIN, 9)
    title_height = TITLE_LINE_HEIGHT * (title.count("\n") + 1) + 4 if title else 0
    header_height = LINE_HEIGHT * max(header.count("\n") + 1 for header in headers) + 4
    top = MARGIN + title_height + header_height
    height = top + len(rows) * (tile_height + GAP) - GAP + MARGIN
    layout = _Layout(tile_height, tile_width, left, top, colorbar_left, width, height)

    figure = new_figure(width, height)
    add_text(figure, MARGIN, MARGIN, title, fontsize=12)
    for column, header in enumerate(headers):
        add_text(figure, layout.x(column) + tile_width / 2, top - 5, header, ha="center", va="bottom", fontsize=9)
    add_text(figure, colorbar_left + 6, top - 5, colorbar_label, va="bottom", fontsize=8)
    for index, row in enumerate(rows):
        _add_row_label(figure, row.label, layout.y(index), tile_height)
        if row.scale:
            axes = add_axes(figure, colorbar_left + 6, layout.y(index) + 6, 12, tile_height - 12)
            _fill_colorbar(axes, *row.scale, colormap)
    return _paste(render(figure), rows, layout)


def _paste(image: np.ndarray, rows: Sequence[GridRow], layout: _Layout) -> np.ndarray:
    """``image`` with the tiles in their places."""
    for index, row in enumerate(rows):
        for column, tile in enumerate(row.tiles):
            y, x = layout.y(index), layout.x(column)
            if tile is not None:
                image[y : y + layout.tile_height, x : x + layout.tile_width] = tile
    return image


def _add_row_label(figure: Figure, label: str, y: int, tile_height: int) -> None:
    """Write a row's label at height ``y``; lines that exceed the row's height are dropped."""
    heading, _, details = label.partition("\n")
    max_lines = max(1, tile_height // LINE_HEIGHT - 1)
    details = "\n".join(wrap_text(details, LABEL_WIDTH, 6).splitlines()[: max_lines - 1])
    add_text(figure, MARGIN, y + 2, heading, fontsize=10, weight="bold")
    add_text(figure, MARGIN, y + 5 + LINE_HEIGHT, details, fontsize=8, linespacing=1.35)


def _fill_colorbar(axes: Axes, low: float, high: float, colormap: str) -> None:
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=colormap, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    decimals = max(1, 1 - math.floor(math.log10(max(high - low, 1e-6))))  # enough to distinguish the numbers
    top, middle, bottom = (f"{value:.{min(decimals, 6)}f}" for value in (high, (low + high) / 2, low))
    axes.set_yticks([0, 127.5, 255], [f"\u2265 {top}", middle, bottom], fontsize=8)  # larger values have the top colour
