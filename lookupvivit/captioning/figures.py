"""Pictures and what was written of them on one sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from lookupvivit.visualization.canvas import _figure, _rendered, _resized, _text, _tile_size

COLUMNS = 6
TILE_MIN = 144  # pixels: shorter side of a picture
GAP, MARGIN, LINE = 16, 12, 15  # pixels
LETTER = 6.4  # pixels of a letter, at the size of the captions


def caption_sheet(pictures: np.ndarray, captions: Sequence[str], title: str = "") -> np.ndarray:
    """Rows of pictures with text below each, uint8 (height, width, 3).

    Args:
        pictures: uint8 (N, H, W, 3).
        captions: N texts, of one line or more; long lines are broken.
        title: text above.
    """
    if len(pictures) != len(captions) or not len(pictures):
        raise ValueError(f"found {len(pictures)} pictures and {len(captions)} captions, must be as many and at least 1")
    tile_h, tile_w = _tile_size(*pictures.shape[1:3], TILE_MIN)
    columns = min(COLUMNS, len(pictures))
    letters = max(8, int(tile_w / LETTER))
    texts = [
        [part for line in caption.splitlines() for part in textwrap.wrap(line, letters) or [""]] for caption in captions
    ]
    rows = [range(start, min(start + columns, len(texts))) for start in range(0, len(texts), columns)]
    heights = [tile_h + 6 + LINE * max(len(texts[place]) for place in row) + GAP for row in rows]
    top = MARGIN + (28 if title else 0)
    width, height = 2 * MARGIN + columns * (tile_w + GAP) - GAP, top + sum(heights)
    figure = _figure(width, height)
    if title:
        shown = textwrap.shorten(title, max(8, int(width / 9)), placeholder=" …")
        _text(figure, MARGIN, MARGIN, shown, fontsize=12)
    corners = []
    for number, row in enumerate(rows):
        y = top + sum(heights[:number])
        for column, place in enumerate(row):
            x = MARGIN + column * (tile_w + GAP)
            corners.append((x, y))
            _text(figure, x, y + tile_h + 6, "\n".join(texts[place]), fontsize=8, linespacing=1.25)
    sheet = _rendered(figure)
    for (x, y), picture in zip(corners, pictures, strict=True):
        sheet[y : y + tile_h, x : x + tile_w] = _resized(picture, tile_h, tile_w)
    return sheet
