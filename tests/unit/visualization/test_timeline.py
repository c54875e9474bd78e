"""The sheet of a prediction: what is drawn is where and what it says."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lookupvivit.visualization.timeline import COLOURS, clock, prediction_sheet

FRAMES = np.stack([np.full((16, 16, 3), value, np.uint8) for value in range(20, 180, 20)])
NOTHING = np.empty(0)


def painted(sheet, colour):
    """Columns of a class's colour, and how many pixels each has."""
    mask = (np.abs(sheet.astype(int) - np.array(to_rgb(colour)) * 255).max(axis=2) < 2).sum(axis=0)
    return np.flatnonzero(mask), mask


def test_bars_are_as_long_as_the_probabilities():
    shares = np.array([0.8, 0.2])
    sheet = prediction_sheet(FRAMES, ["a", "b"], shares, 1.0, NOTHING, NOTHING, np.empty((0, 2)))
    lengths = [len(painted(sheet, colour)[0]) for colour in COLOURS[:2]]
    assert lengths[0] / lengths[1] == pytest.approx(4, rel=0.02)


def test_time_runs_along_the_sheet_and_probability_up():
    """Class a for the first quarter, b at half height for the rest."""
    starts = np.arange(0, 8, 2.0)
    timeline = np.array([[1, 0], [0, 0.5], [0, 0.5], [0, 0.5]])
    sheet = prediction_sheet(FRAMES, ["a", "b"], np.array([0.4, 0.6]), 8.0, starts, starts + 2, timeline, "film")
    (first, heights), (rest, half) = painted(sheet, COLOURS[0]), painted(sheet, COLOURS[1])
    assert len(rest) / len(first) == pytest.approx(3, rel=0.02) and first[-1] <= rest[0] + 2
    assert heights.max() / half.max() == pytest.approx(2, rel=0.1)
    # A frame stands above its moment: the third of eight where the second quarter begins.
    for value in (20, 60):
        columns = np.flatnonzero((sheet == value).all(axis=2).sum(axis=0) > 50)
        assert columns.min() >= first[0] and (columns.max() <= first[-1]) == (value == 20)


@pytest.mark.parametrize("frames", [1, 3, 8])
@pytest.mark.parametrize("classes", [1, 12])
def test_any_number_of_frames_and_classes_and_any_names(frames, classes):
    names = ["$x^2", "日本", "a very long name " * 9, "", "\n", "word" * 40][:classes]
    names += [str(i) for i in range(classes - len(names))]
    shares = np.full(classes, 1 / classes)
    for starts in (NOTHING, np.array([0.0, 0.02])):
        sheet = prediction_sheet(
            FRAMES[:frames],
            names,
            shares,
            0.05,
            starts,
            starts + 0.03,
            np.tile(shares, (len(starts), 1)),
            "naïve $ 日本 " * 30,
            "x",
        )
        assert sheet.dtype == np.uint8 and sheet.ndim == 3 and (sheet[:, -4:] == 255).all()


def test_clock():
    assert [clock(s) for s in (0, 59.4, 59.6, 3599, 3600, 36000)] == [
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
        "10:00:00",
    ]
    assert [clock(s, tenths=True) for s in (0.04, 59.96, 61.25)] == ["0:00.0", "1:00.0", "1:01.2"]
