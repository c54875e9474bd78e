import sys

import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualize.pictures import attention_sheet, confusion_picture, overlay, save_png


def clip(frames=8, size=64):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (frames, size, size, 3), np.uint8), rng.random((frames, size, size))


def enlarged(picture):
    return picture.repeat(3, axis=0).repeat(3, axis=1)


def contains(sheet, tile):
    """Whether an image occurs somewhere in another, pixel for pixel."""
    height, width = tile.shape[:2]
    corners = np.argwhere((sheet[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=-1))
    return any((sheet[y : y + height, x : x + width] == tile).all() for y, x in corners)


def test_overlay_ends():
    frames, maps = clip()
    plain = overlay(frames, maps, alpha=0.0)
    grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])
    assert np.abs(plain[..., 0].astype(int) - grey).max() <= 1
    # Colour alone: brighter where more attention is.
    ramp = np.broadcast_to(np.linspace(0, 1, 64), maps.shape)
    luma = (overlay(np.zeros_like(frames), ramp, alpha=1.0) @ [0.3, 0.6, 0.1])[0, 0]
    assert (np.diff(luma) > -1).all() and luma[0] < 5 and luma[-1] > 220


def test_a_sheet_holds_every_frame_and_overlay_enlarged_by_whole_pixels():
    frames, maps = clip()
    sheet = attention_sheet(frames, maps, 0.0, 0.01, title="truth | guess", caption="block 0")
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    for picture in (*frames, *overlay(frames, maps)):
        assert contains(sheet, enlarged(picture))


def test_a_long_clip_shows_its_first_and_last_frame_among_at_most_columns_max():
    frames, maps = clip(frames=30)
    sheet = attention_sheet(frames, maps, 0.0, 0.01, columns_max=4)
    assert [i for i, frame in enumerate(frames) if contains(sheet, enlarged(frame))] == [0, 10, 19, 29]


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (2, 720, 1280), (3, 50, 190)])
def test_sheets_of_other_shapes_stay_of_sane_size(frames, height, width):
    picture = np.zeros((frames, height, width, 3), np.uint8)
    sheet = attention_sheet(picture, np.zeros((frames, height, width)), 0.0, 0.0, title="long words " * 30)
    assert 200 < sheet.shape[0] < 1200 and 400 < sheet.shape[1] < 1400


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 400])
def test_confusion_pictures_of_any_size(classes):
    matrix = np.eye(classes, dtype=np.int64)
    matrix[0] = 0  # a class without videos
    image = confusion_picture(matrix, [f"class {i}" for i in range(classes)])
    assert image.dtype == np.uint8 and min(image.shape[:2]) > 300 and max(image.shape[:2]) < 1500


def test_a_confusion_picture_is_normalised_by_true_class():
    # Rows of 1 and of 1000 videos, each always right, shade alike; the third is always taken for the first.
    image = confusion_picture(np.array([[1, 0, 0], [0, 1000, 0], [7, 0, 0]]), ["a", "b", "c"])
    darkest = (image == [8, 48, 107]).all(axis=-1)  # the last of the Blues
    cell = (320 // 3) ** 2
    assert 2.8 * cell < darkest.sum() < 3.7 * cell  # three cells without their numbers, and an end of the bar


def test_pictures_leave_no_state_and_no_half_written_file(tmp_path):
    frames, maps = clip(frames=1)
    image = overlay(frames, maps)[0]
    save_png(tmp_path / "deep" / "picture.png", image)
    assert (np.asarray(Image.open(tmp_path / "deep" / "picture.png")) == image).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["picture.png"]
    assert "matplotlib.pyplot" not in sys.modules


def test_wrong_arrays_are_refused():
    frames, maps = clip()
    with pytest.raises(ValueError, match="float64"):
        overlay(frames / 255, maps)
    with pytest.raises(ValueError, match=r"\(8, 64, 64\), found \(4, 64, 64\)"):
        overlay(frames, maps[:4])
    with pytest.raises(ValueError, match="3 class names"):
        confusion_picture(np.eye(2), ["a", "b", "c"])
