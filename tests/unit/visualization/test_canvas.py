import sys

import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualization.canvas import confusion_picture, save_png


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
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    save_png(tmp_path / "deep" / "picture.png", image)
    assert (np.asarray(Image.open(tmp_path / "deep" / "picture.png")) == image).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["picture.png"]
    assert "matplotlib.pyplot" not in sys.modules


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="3 class names"):
        confusion_picture(np.eye(2), ["a", "b", "c"])
