"""A grid of images with captions below them (needs matplotlib)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lookupvivit.visualization.canvas import add_text, new_figure, render, resize_image, tile_size, wrap_text

COLUMNS = 6
TILE_MIN = 144  # pixels: minimum of an image's shorter side; smaller images are enlarged
GAP, MARGIN, LINE_HEIGHT, TITLE_HEIGHT = 16, 12, 15, 28  # pixels
TEXT_OFFSET = 6  # pixels between an image and its caption
CHARACTER_WIDTH = 6.4  # pixels, at the font size of captions
TITLE_CHARACTER_WIDTH = 9  # pixels


def middle_frames(clips: Tensor) -> np.ndarray:
    """The middle frame of clips (N, 3, T, H, W) as (N, H, W, 3)."""
    return clips[:, :, clips.shape[2] // 2].permute(0, 2, 3, 1).numpy()


def caption_grid(images: np.ndarray, captions: Sequence[str], title: str = "") -> np.ndarray:
    """Draw rows of images with a caption below each, uint8 (height, width, 3).

    Args:
        images: uint8 (N, H, W, 3).
        captions: N texts of one or more lines; long lines are wrapped.
        title: text above the grid.

    Raises:
        ValueError: no image, or a different number of captions.
    """
    if len(images) != len(captions) or not len(images):
        raise ValueError(f"captions: found {len(captions)} for {len(images)} images, expected one per image")
    tile_h, tile_w = tile_size(images[0], TILE_MIN)
    texts = [wrap_text(caption, tile_w, CHARACTER_WIDTH) for caption in captions]
    columns = min(COLUMNS, len(images))
    grid_width = 2 * MARGIN + columns * (tile_w + GAP) - GAP

    corners: list[tuple[int, int]] = []  # (x, y) of each image
    y = MARGIN + (TITLE_HEIGHT if title else 0)
    for start in range(0, len(texts), columns):
        row = texts[start : start + columns]
        corners += [(MARGIN + column * (tile_w + GAP), y) for column in range(len(row))]
        y += tile_h + TEXT_OFFSET + LINE_HEIGHT * max(text.count("\n") + 1 for text in row) + GAP

    figure = new_figure(grid_width, y)
    if title:
        title_length = max(8, int(grid_width / TITLE_CHARACTER_WIDTH))
        add_text(figure, MARGIN, MARGIN, textwrap.shorten(title, title_length, placeholder=" …"), fontsize=12)
    for (x, top), text in zip(corners, texts, strict=True):
        add_text(figure, x, top + tile_h + TEXT_OFFSET, text, fontsize=8, linespacing=1.25)
    grid = render(figure)
    for (x, top), image in zip(corners, images, strict=True):
        grid[top : top + tile_h, x : x + tile_w] = resize_image(image, tile_h, tile_w)
    return grid
