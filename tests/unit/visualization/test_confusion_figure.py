import numpy as np
import pytest

from lookupvivit.visualization.confusion_figure import confusion_figure


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 400])
def test_figures_of_any_number_of_classes_have_a_reasonable_size(classes):
    matrix = np.eye(classes, dtype=np.int64)
    matrix[0] = 0  # a class without videos
    image = confusion_figure(matrix, [f"class {i}" for i in range(classes)])
    assert image.dtype == np.uint8 and min(image.shape[:2]) > 300 and max(image.shape[:2]) < 1500


def test_shades_are_normalised_by_true_class():
    """Rows of 1, of 1000 and of 7 videos, each predicted as one class, have the same darkest shade."""
    image = confusion_figure(np.array([[1, 0, 0], [0, 1000, 0], [7, 0, 0]]), ["a", "b", "c"])
    darkest = (image == [8, 48, 107]).all(axis=-1)  # the last colour of Blues
    cell = (320 // 3) ** 2
    assert 2.8 * cell < darkest.sum() < 3.7 * cell  # three cells without their numbers, and the end of the colour bar


def test_a_wrong_number_of_names_is_an_error():
    with pytest.raises(ValueError, match="3 class names"):
        confusion_figure(np.eye(2), ["a", "b", "c"])
