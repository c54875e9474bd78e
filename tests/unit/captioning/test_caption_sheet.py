"""Sheets of pictures and captions: every picture is shown as it is, and text takes the room that it needs."""

import numpy as np
import pytest

from lookupvivit.captioning.figures import COLUMNS, GAP, MARGIN, TILE_MIN, caption_sheet


def test_every_picture_stands_on_the_sheet_above_its_words():
    count, side = COLUMNS + 2, TILE_MIN  # pictures of this side are shown pixel by pixel
    pictures = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    short = caption_sheet(pictures, [f"number {i} costs $5" for i in range(count)])
    long = caption_sheet(pictures, ["a long caption " * 9, *["日本"] * (count - 1)], title="$x$ and so on")
    for column in range(COLUMNS):
        x = MARGIN + column * (side + GAP)
        assert np.array_equal(short[MARGIN : MARGIN + side, x : x + side], pictures[column])
    places = [
        y
        for y in range(MARGIN + side, short.shape[0] - side)
        if np.array_equal(short[y : y + side, MARGIN : MARGIN + side], pictures[COLUMNS])
    ]
    assert len(places) == 1  # the second row
    below = short[MARGIN + side : places[0], MARGIN : MARGIN + side]
    assert (below < 128).any()  # ink
    assert long.shape[0] > short.shape[0] + 60 and long.shape[1] == short.shape[1]
    with pytest.raises(ValueError, match="found 2 pictures and 1 captions"):
        caption_sheet(pictures[:2], ["one"])
