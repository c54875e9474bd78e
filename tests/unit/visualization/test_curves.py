"""The picture of accuracy against cost: everything is in it, and its labels can be read."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from lookupvivit.visualization import curves
from lookupvivit.visualization.curves import COLOURS, Curve, cost_picture

LINE = Curve(
    "one",
    [90, 90.2, 90.1, 95],
    [1, 1.05, 1.1, 30],
    [300, 290, 280, 9],
    ["1x1x1", "1x2x2", "2x2x2", "4x4x4"],
    [(88, 92)] * 4,
    [False, False, False, True],
)
OTHER = Curve("two", [90.1, 94], [1, 20], [300, 12], ["", "8x8x8"], dashed=True)


def pixels_of(picture, colour):
    return (np.abs(picture.astype(int) - np.round(np.array(to_rgb(colour)) * 255)).max(axis=-1) <= 2).sum()


def test_every_name_has_its_colour():
    picture = cost_picture([LINE, OTHER, LINE], "title", "caption")
    assert picture.dtype == np.uint8 and picture.shape == (curves.HEIGHT, curves.WIDTH, 3)
    assert pixels_of(picture, COLOURS[0]) > 100 and pixels_of(picture, COLOURS[1]) > 100
    assert pixels_of(picture, COLOURS[2]) == 0  # a name that comes back keeps its colour


def test_no_label_lies_over_another(monkeypatch):
    seen = []
    render = curves._rendered
    monkeypatch.setattr(curves, "_rendered", lambda figure: seen.append(figure) or render(figure))
    cost_picture([LINE, OTHER], "title", "caption")
    for axes in seen[0].axes:
        boxes = [note.get_window_extent() for note in axes.findobj(Annotation) if note.get_text()]
        assert len(boxes) == 5
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert axes.get_xscale() == "log"  # a factor of thirty
