"""Grids of images and captions: images appear unchanged, and rows are as high as their text needs."""

import numpy as np
import pytest

from lookupvivit.captioning.figures import COLUMNS, GAP, MARGIN, TILE_MIN, caption_grid


def test_images_appear_unchanged_above_their_captions():
    num_images, side = COLUMNS + 2, TILE_MIN  # images of this side are not resized
    images = np.random.default_rng(0).integers(0, 255, (num_images, side, side, 3), dtype=np.uint8)
    grid = caption_grid(images, [f"number {i} costs $5" for i in range(num_images)])
    for column in range(COLUMNS):
        x = MARGIN + column * (side + GAP)
        assert np.array_equal(grid[MARGIN : MARGIN + side, x : x + side], images[column])
    first_column = grid[:, MARGIN : MARGIN + side]
    second_row = [
        y for y in range(MARGIN + side, len(grid) - side) if np.array_equal(first_column[y : y + side], images[COLUMNS])
    ]
    assert len(second_row) == 1
    text = first_column[MARGIN + side : second_row[0]]
    assert (text < 128).any()


def test_long_captions_make_rows_higher():
    images = np.zeros((2, TILE_MIN, TILE_MIN, 3), np.uint8)
    short, long = caption_grid(images, ["a", "b"]), caption_grid(images, ["a long caption " * 9, "日本"], title="$x$")
    assert long.shape[0] > short.shape[0] + 60 and long.shape[1] == short.shape[1]


def test_every_image_needs_a_caption():
    with pytest.raises(ValueError, match="found 1 for 2 images"):
        caption_grid(np.zeros((2, 8, 8, 3), np.uint8), ["one"])
