"""Sheets and stills, told from what stands at which pixel."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualization.attention_grid import MARK, clip_sheet, overlay, still
from lookupvivit.visualization.attention_maps import AttentionMaps


def look(frames=8, size=176, tokens=(None,), blocks=(0,), compressed=(4, 4, 4), seed=0):
    rng = np.random.default_rng(seed)
    rows = tuple((block, token) for block in blocks for token in tokens)
    weights = rng.random((len(rows), -(-frames // 2), 6, 6)).astype(np.float32)
    weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
    shades = rng.integers(0, 256, (frames, 8, 8, 3), np.uint8)
    pictures = np.stack([np.asarray(Image.fromarray(one).resize((size, size))) for one in shades])
    return AttentionMaps(pictures, weights, rows, ((0, 1), 2), compressed, np.array([0.25, 0.75]))


def places(sheet, tile):
    """Where an image occurs in another, pixel for pixel: (top, left) of each."""
    height, width = tile.shape[:2]
    corners = np.argwhere((sheet[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=-1))
    return [(y, x) for y, x in corners if (sheet[y : y + height, x : x + width] == tile).all()]


def shaded(maps, row):
    """A row's overlays, worked out apart: from the smallest token to the 0.99 quantile."""
    ordered = np.sort(maps.multiples[row].ravel())
    low, high = ordered[0], ordered[round(0.99 * (len(ordered) - 1))]
    return overlay(maps.frames, ((maps.pixels()[row] - low) / (high - low)).clip(0, 1))


def mark(sheet):
    return (sheet == MARK).all(axis=-1)


def test_overlay_ends():
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    plain = overlay(frames, np.random.default_rng(1).random((2, 64, 64)), alpha=0.0)
    grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])
    assert np.abs(plain[..., 0].astype(int) - grey).max() <= 1
    # Colour alone: brighter where more attention is.
    ramp = np.broadcast_to(np.linspace(0, 1, 64), (2, 64, 64))
    luma = (overlay(np.zeros_like(frames), ramp, alpha=1.0) @ [0.3, 0.6, 0.1])[0, 0]
    assert (np.diff(luma) > -1).all() and luma[0] < 5 and luma[-1] > 220


def test_a_sheet_has_frames_above_and_a_row_for_every_map_each_on_its_own_scale():
    maps = look(blocks=(0, 5))
    sheet = clip_sheet([maps], "clip.mp4\npredicted: $left (75 %)")
    rows = [maps.frames, shaded(maps, 0), shaded(maps, 1)]
    found = [[places(sheet, tile) for tile in row] for row in rows]
    assert all(len(spots) == 1 for row in found for spots in row)
    tops, lefts = ([[spots[0][axis] for spots in row] for row in found] for axis in (0, 1))
    assert all(len(set(row)) == 1 for row in tops) and tops[0][0] < tops[1][0] < tops[2][0]
    assert lefts[0] == lefts[1] == lefts[2] == sorted(set(lefts[0]))
    assert not mark(sheet).any()


def test_a_long_clip_shows_its_first_and_last_frame_and_the_marked_one():
    maps = look(frames=30, compressed=(15, 4, 4))
    shown = [i for i, frame in enumerate(maps.frames) if places(clip_sheet([maps], columns_max=4), frame)]
    assert shown == [0, 10, 19, 29]
    token = look(frames=30, tokens=((7, 1, 2),), compressed=(15, 4, 4))
    sheet = clip_sheet([token], columns_max=4)
    shown = [i for i, frame in enumerate(token.frames) if places(sheet, frame[132:, :88])]  # where no mark is
    assert shown == [0, 10, 15, 29]


def test_a_tokens_cell_is_boxed_in_its_own_frames_and_cornered_in_the_others():
    maps = look(tokens=((2, 1, 3),))
    sheet = clip_sheet([maps])
    for row, tiles in enumerate((maps.frames, shaded(maps, 0))):
        top, left = places(clip_sheet([look()]), (look().frames, shaded(look(), 0))[row][0])[0]
        step = 176 + 4
        for index in range(len(tiles)):
            tile = mark(sheet[top : top + 176, left + index * step : left + index * step + 176])
            y, x = np.nonzero(tile)
            assert (y.min(), y.max(), x.min(), x.max()) == (44, 87, 132, 175)  # (1, 3) of 4 x 4 in 176 pixels
            assert tile[66, 132] == (index in (4, 5))  # the side's middle: boxed in frames 4 and 5 alone


def test_a_still_has_a_column_for_every_size_on_one_scale():
    small, large = look(frames=1, size=256, compressed=(1, 3, 3)), look(frames=1, size=256, seed=1)
    large = dataclasses.replace(large, frames=small.frames, compressed_size=(1, 7, 7))
    sheet = still([small, large], 0, "photo.jpg", size_labels=["3 x 3\ncat (60 %)", "7 x 7\ncat (70 %)"])
    (top, left) = places(sheet, small.frames[0])[0]
    both = np.sort(np.concatenate([one.multiples.ravel() for one in (small, large)]))
    low, high = both[0], both[round(0.99 * (len(both) - 1))]
    for column, one in enumerate((small, large), start=1):
        tile = overlay(one.frames, ((one.pixels()[0] - low) / (high - low)).clip(0, 1))[0]
        assert places(sheet, tile) == [(top, left + column * 260)]


@pytest.mark.parametrize(("blocks", "height", "width"), [(1, 16, 16), (12, 224, 224), (3, 50, 190), (2, 720, 1280)])
def test_stills_and_sheets_of_any_shape_stay_of_sane_size(blocks, height, width):
    own = look(blocks=range(blocks))
    black = np.zeros((8, height, width, 3), np.uint8)
    maps = dataclasses.replace(own, frames=black, weights=np.full_like(own.weights, 1 / 144))
    picture = still([maps], 3, "long words " * 30, "1.00 s")
    assert 150 < picture.shape[0] < 1500 and 500 < picture.shape[1] < 1100
    assert clip_sheet([maps], "long words " * 30).shape[1] < 3600


def test_wrong_arrays_are_refused():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="float64"):
        overlay(frames / 255, np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\), found \(1, 4, 4\)"):
        overlay(frames, np.zeros((1, 4, 4)))
