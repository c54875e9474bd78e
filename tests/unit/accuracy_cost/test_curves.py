"""The figure of accuracy against cost: all curves are drawn, and their labels are legible."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from lookupvivit.accuracy_cost import curves
from lookupvivit.accuracy_cost.curves import PALETTE, Curve, cost_figure

CURVE = Curve(
    "one",
    top1=[90, 90.2, 90.1, 95],
    gflops=[1, 1.05, 1.1, 30],
    clips_per_second=[300, 290, 280, 9],
    labels=["1x1x1", "1x2x2", "2x2x2", "4x4x4"],
    intervals=[(88, 92)] * 4,
    stars=[False, False, False, True],
)
DASHED = Curve("two", top1=[90.1, 94], gflops=[1, 20], clips_per_second=[300, 12], labels=["", "8x8x8"], dashed=True)


def count_pixels(image, color):
    return (np.abs(image.astype(int) - np.round(np.array(to_rgb(color)) * 255)).max(axis=-1) <= 2).sum()


def test_each_name_has_one_colour():
    image = cost_figure([CURVE, DASHED, CURVE], "title", "caption")
    assert image.dtype == np.uint8 and image.shape == (curves.HEIGHT, curves.WIDTH, 3)
    assert count_pixels(image, PALETTE[0]) > 100 and count_pixels(image, PALETTE[1]) > 100
    assert count_pixels(image, PALETTE[2]) == 0


def test_labels_do_not_overlap(monkeypatch):
    figures = []
    render = curves.render
    monkeypatch.setattr(curves, "render", lambda figure: figures.append(figure) or render(figure))
    cost_figure([CURVE, DASHED], "title", "caption")
    for axes in figures[0].axes:
        boxes = [label.get_window_extent() for label in axes.findobj(Annotation) if label.get_text()]
        assert len(boxes) == 5
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert axes.get_xscale() == "log"  # costs differ by a factor of 30
