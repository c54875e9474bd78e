"""The canvas: exact pixels, no global state, complete files."""

import sys

import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualization.canvas import add_axes, add_text, new_figure, render, save_png, tile_size, wrap_text


def test_axes_lie_at_their_pixels():
    figure = new_figure(120, 80)
    axes = add_axes(figure, x=30, y=10, width=40, height=20)
    axes.set(xticks=[], yticks=[], facecolor="black")
    axes.spines[:].set_visible(False)
    image = render(figure)
    assert image.shape == (80, 120, 3) and image.dtype == np.uint8
    y, x = np.nonzero((image == 0).all(axis=-1))
    assert (y.min(), y.max(), x.min(), x.max()) == (10, 29, 30, 69) and len(y) == 20 * 40


def test_text_lies_below_and_right_of_its_position():
    figure = new_figure(200, 60)
    add_text(figure, 20, 30, "$x^2 日本")  # neither a formula nor a missing glyph is an error
    y, x = np.nonzero((render(figure) < 255).any(axis=-1))
    assert y.min() >= 30 and 19 <= x.min() < 25


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 64), (176, 176)), ((224, 448), (192, 384)), ((720, 1280), (216, 384)), ((1, 900), (1, 384))],
)
def test_tiles_are_enlarged_to_a_shorter_side_within_a_longer_side(shape, expected):
    assert tile_size(np.zeros((*shape, 3)), 176) == expected


def test_long_lines_are_wrapped_at_their_width():
    assert wrap_text("one two three\nfour", width=80, letter_width=8) == "one two\nthree\nfour"


def test_png_files_are_complete_and_leave_no_global_state(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    save_png(tmp_path / "deep" / "figure.png", image)
    assert (np.asarray(Image.open(tmp_path / "deep" / "figure.png")) == image).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["figure.png"]
    assert "matplotlib.pyplot" not in sys.modules
