"""The figure of a prediction: lengths, heights and positions are those of the numbers."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lookupvivit.visualization.canvas import PALETTE
from lookupvivit.visualization.prediction_figure import Timeline, prediction_figure
from lookupvivit.visualization.time_format import format_time

FRAMES = np.stack([np.full((16, 16, 3), value, np.uint8) for value in range(20, 180, 20)])


def pixels_per_column(figure, colour):
    """The number of pixels of a colour in each column of the figure, and the columns that have any."""
    pixels = (np.abs(figure.astype(int) - np.array(to_rgb(colour)) * 255).max(axis=2) < 2).sum(axis=0)
    return pixels, np.flatnonzero(pixels)


def test_bars_are_as_long_as_the_probabilities():
    figure = prediction_figure(FRAMES, ["a", "b"], np.array([0.8, 0.2]))
    lengths = [len(pixels_per_column(figure, colour)[1]) for colour in PALETTE[:2]]
    assert lengths[0] / lengths[1] == pytest.approx(4, rel=0.02)


def test_a_timeline_has_time_along_the_width_and_probability_along_the_height():
    """Class a in the first quarter, class b with half its probability in the rest."""
    starts = np.arange(0, 8, 2.0)
    timeline = Timeline(8.0, starts, starts + 2, np.array([[1, 0], [0, 0.5], [0, 0.5], [0, 0.5]]))
    figure = prediction_figure(FRAMES, ["a", "b"], np.array([0.4, 0.6]), timeline, "video.mp4")
    (heights_a, columns_a), (heights_b, columns_b) = (pixels_per_column(figure, colour) for colour in PALETTE[:2])
    assert len(columns_b) / len(columns_a) == pytest.approx(3, rel=0.02) and columns_a[-1] <= columns_b[0] + 2
    assert heights_a.max() / heights_b.max() == pytest.approx(2, rel=0.1)
    # Each frame stands above its time: of eight, the first ends in the first quarter, the third begins after it.
    for value in (20, 60):
        columns = np.flatnonzero((figure == value).all(axis=2).sum(axis=0) > 50)
        assert columns.min() >= columns_a[0] and (columns.max() <= columns_a[-1]) == (value == 20)


def test_a_strip_shows_the_segments():
    """Of 8 s: class a to 2 s, class b to 6 s, and one that is not shown; probabilities are 0, so that only it is."""
    starts = np.arange(0, 8, 2.0)
    segments = [(0.0, 2.0, 0), (2.0, 6.0, 1), (6.0, 8.0, None)]
    timeline = Timeline(8.0, starts, starts + 2, np.zeros((4, 2)), segments)
    figure = prediction_figure(FRAMES, ["a", "b"], np.zeros(2), timeline)
    columns_a, columns_b = (pixels_per_column(figure, colour)[1] for colour in PALETTE[:2])
    assert len(columns_b) / len(columns_a) == pytest.approx(2, rel=0.02) and columns_a[-1] <= columns_b[0] + 1
    none = prediction_figure(FRAMES, ["a", "b"], np.zeros(2), Timeline(8.0, starts, starts + 2, np.zeros((4, 2))))
    assert not len(pixels_per_column(none, PALETTE[0])[1]) and len(none) < len(figure)


@pytest.mark.parametrize("num_frames", [1, 3, 8])
@pytest.mark.parametrize("classes", [1, 12])
def test_any_number_of_frames_and_classes_and_any_names(num_frames, classes):
    names = ["$x^2", "日本", "a very long name " * 9, "", "\n", "word" * 40][:classes]
    names += [str(i) for i in range(classes - len(names))]
    probabilities = np.full(classes, 1 / classes)
    starts = np.array([0.0, 0.02])
    timeline = Timeline(0.05, starts, starts + 0.03, np.tile(probabilities, (2, 1)))
    for over_time in (None, timeline):
        figure = prediction_figure(FRAMES[:num_frames], names, probabilities, over_time, "naïve $ 日本 " * 30, "x")
        assert figure.dtype == np.uint8 and figure.ndim == 3 and (figure[:, -4:] == 255).all()


def test_format_time():
    assert [format_time(s) for s in (0, 59.4, 59.6, 3599)] == ["0:00", "0:59", "1:00", "59:59"]
    assert [format_time(s) for s in (3600, 36000)] == ["1:00:00", "10:00:00"]
    assert [format_time(s, tenths=True) for s in (0.04, 59.96, 61.25)] == ["0:00.0", "1:00.0", "1:01.2"]
