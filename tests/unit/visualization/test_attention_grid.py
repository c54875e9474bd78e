"""Attention grids: which pixels show which frame, which colour and which mark."""

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.attention import make_maps

from lookupvivit.visualization.attention_grid import MARK, _displayed_frames, clip_grid, frame_grid, overlay, size_text

GREY = 100  # of uniform frames
STEP = 176 + 4  # pixels from one tile of a clip grid to the next


def find(image, tile):
    """Positions (top, left) at which ``tile`` occurs in ``image``, pixel for pixel."""
    height, width = tile.shape[:2]
    corners = np.argwhere((image[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=-1))
    return [(y, x) for y, x in corners if (image[y : y + height, x : x + width] == tile).all()]


def expected_colour(shade):
    """A frame of the grey value GREY under a map of value ``shade``: 35 % grey and 65 % of matplotlib's inferno."""
    return np.round(0.35 * GREY + 0.65 * 255 * np.array(matplotlib.colormaps["inferno"](float(shade))[:3]))


def is_marked(image):
    return (image == MARK).all(axis=-1)


def test_overlay_without_colour_is_the_grey_frame():
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])
    plain = overlay(frames, np.random.default_rng(1).random((2, 64, 64)), alpha=0.0)
    assert np.abs(plain.astype(int) - grey[..., None]).max() <= 1


def test_overlay_of_colour_alone_becomes_brighter_with_the_attention():
    ramp = np.broadcast_to(np.linspace(0, 1, 64), (2, 64, 64))
    colour = overlay(np.full((2, 64, 64, 3), 200, np.uint8), ramp, alpha=1.0)
    np.testing.assert_array_equal(colour[1, 5], (matplotlib.colormaps["inferno"](ramp[0, 0])[:, :3] * 255).round())
    luma = colour[0, 0] @ [0.3, 0.6, 0.1]
    assert (np.diff(luma) > -1).all() and luma[0] < 5 and luma[-1] > 220


def test_a_clip_grid_has_frames_above_and_one_row_per_map():
    """Uniform attention has the lowest colour, so that each tile is its frame in grey and black."""
    maps = make_maps(blocks=(0, 5), weights=np.ones((2, 4, 6, 6)))
    grid = clip_grid([maps], "clip.mp4\npredicted: $left (75 %)")
    positions = [find(grid, frame) for frame in maps.frames]
    (top, left), *_ = positions[0]
    assert positions == [[(top, left + STEP * index)] for index in range(8)]
    for row in (1, 2):
        for column in range(8):
            y, x = top + STEP * row, left + STEP * column
            tile, grey = grid[y : y + 176, x : x + 176], np.asarray(Image.fromarray(maps.frames[column]).convert("L"))
            assert np.abs(tile - 0.35 * grey[..., None]).max() <= 3
    assert not is_marked(grid).any()


def test_each_row_has_its_own_colour_scale():
    """Attention that is constant in space: a tile has one colour, which the values 1 to 4 of the tubelets determine."""
    per_tubelet = np.array([[1, 2, 3, 4], [40, 10, 10, 10]])[:, :, None, None] * np.ones((6, 6))
    frames = np.full((8, 176, 176, 3), GREY, np.uint8)
    grid = clip_grid([make_maps(blocks=(0, 5), weights=per_tubelet, frames=frames)])
    top, left = np.argwhere((grid == GREY).all(axis=-1))[0]
    shades = [[0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1], [1, 1, 0, 0, 0, 0, 0, 0]]  # each tubelet has two frames
    for row, row_shades in enumerate(shades, start=1):
        for column, shade in enumerate(row_shades):
            y, x = top + STEP * row, left + STEP * column
            tile = grid[y : y + 176, x : x + 176].astype(int)
            assert np.abs(tile - expected_colour(shade)).max() <= 3, (row, column)


def test_the_brightest_pixels_are_those_of_the_attended_tokens():
    weights = np.full((1, 4, 6, 6), 0.01)
    weights[0, 2:, 4, 2] = 1  # frames 4 to 7, rows 117 to 146 and columns 59 to 87 of 176
    frames = np.full((8, 176, 176, 3), GREY, np.uint8)
    grid = clip_grid([make_maps(weights=weights, frames=frames)])
    top, left = np.argwhere((grid == GREY).all(axis=-1))[0]
    tiles = [grid[top + STEP :, left + STEP * column :][:176, :176].sum(axis=-1, dtype=int) for column in range(8)]
    frame, y, x = np.unravel_index(np.argmax(tiles), np.shape(tiles))
    assert frame >= 4 and 117 <= y <= 146 and 59 <= x <= 87


@given(st.integers(1, 40), st.integers(1, 10), st.lists(st.integers(0, 39), max_size=4))
def test_every_marked_token_has_a_frame(num_frames, columns, starts):
    cells = [slice(start, start + 2) for start in starts if start + 2 <= num_frames]
    shown = _displayed_frames(num_frames, columns, cells)
    assert all(any(cell.start <= index < cell.stop for index in shown) for cell in cells)
    assert shown == sorted(set(shown)) and len(shown) <= max(columns, len(cells)) and max(shown) < num_frames


def test_many_rows_have_a_least_height():
    blocks = tuple(range(100))
    weights = np.full((100, 4, 6, 6), 0.01)
    assert frame_grid([make_maps(blocks=blocks, weights=weights)]).shape[0] > 100 * 24


def test_a_long_clip_shows_the_first_the_last_and_the_marked_frame():
    maps = make_maps(num_frames=30, compressed_size=(15, 4, 4))
    grid = clip_grid([maps], max_columns=4)
    assert [index for index, frame in enumerate(maps.frames) if find(grid, frame)] == [0, 10, 19, 29]
    maps = make_maps(num_frames=30, tokens=((7, 1, 2),), compressed_size=(15, 4, 4))  # frames 14 and 15
    grid = clip_grid([maps], max_columns=4)
    unmarked_parts = [frame[132:, :88] for frame in maps.frames]
    assert [index for index, part in enumerate(unmarked_parts) if find(grid, part)] == [0, 10, 15, 29]


def test_a_token_is_marked_by_a_box_in_its_own_frames_and_by_corners_in_the_others():
    (top, left), *_ = find(clip_grid([make_maps()]), make_maps().frames[0])
    grid = clip_grid([make_maps(tokens=((2, 1, 3),))])
    for row in (0, 1):
        for column in range(8):
            y, x = top + STEP * row, left + STEP * column
            marked = is_marked(grid[y : y + 176, x : x + 176])
            ys, xs = np.nonzero(marked)
            assert (ys.min(), ys.max(), xs.min(), xs.max()) == (44, 87, 132, 175)  # position (1, 3) of 4 x 4
            assert marked[66, 132] == (column in (4, 5))  # middle of the left side


def test_a_frame_grid_has_one_column_per_size_on_a_common_scale():
    """Two sizes whose left halves have the multiples 0.5 and 0.2, and whose right halves have 1.5 and 1.8."""
    frames = np.full((1, 256, 256, 3), GREY, np.uint8)
    halves = [np.where(np.arange(6) < 3, low, 2 - low) * np.ones((1, 1, 6, 6)) for low in (0.5, 0.2)]
    sizes = [(1, 3, 3), (1, 7, 7)]
    maps_per_size = [
        make_maps(1, 256, compressed_size=size, weights=weights, frames=frames)
        for size, weights in zip(sizes, halves, strict=True)
    ]
    grid = frame_grid(maps_per_size, 0, "photo.jpg", size_labels=["3x3\ncat (60 %)", "7x7\ncat (70 %)"])
    top, left = np.argwhere((grid == GREY).all(axis=-1))[0]
    shades = [(0.3 / 1.6, 1.3 / 1.6), (0, 1)]  # on the scale from 0.2 to 1.8
    for column, (left_shade, right_shade) in enumerate(shades, start=1):
        x = left + column * 260
        tile = grid[top : top + 256, x : x + 256].astype(int)
        assert np.abs(tile[:, :20] - expected_colour(left_shade)).max() <= 3
        assert np.abs(tile[:, -20:] - expected_colour(right_shade)).max() <= 3


def test_sizes_are_written_as_in_the_rest_of_the_product():
    assert size_text(make_maps(compressed_size=(4, 5, 5))) == "4x5x5"
    assert size_text(make_maps(num_frames=1, compressed_size=(1, 5, 5))) == "5x5"


@pytest.mark.parametrize(("blocks", "height", "width"), [(1, 16, 16), (12, 224, 224), (3, 50, 190), (2, 720, 1280)])
def test_figures_of_any_frame_size_have_a_reasonable_size(blocks, height, width):
    frames = np.zeros((2, height, width, 3), np.uint8)
    maps = make_maps(blocks=range(blocks), weights=np.ones((blocks, 1, 6, 6)), frames=frames)
    figure = frame_grid([maps], 1, "long words " * 30, "1.00 s")
    assert 150 < figure.shape[0] < 1500 and 500 < figure.shape[1] < 1100
    assert clip_grid([maps], "long words " * 30).shape[1] < 1200


def test_wrong_arrays_are_errors():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="frames: found float64"):
        overlay(frames / 255, np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"maps: .*\(1, 4, 4\).*\(2, 4, 4\)"):
        overlay(frames, np.zeros((1, 4, 4)))
