"""What a model predicts for a video, as one figure: frames, and the probable classes over time or as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from lookupvivit.visualization.canvas import PALETTE, add_axes, add_text, new_figure, render
from lookupvivit.visualization.time_format import format_time

GREY, PALE_GREY = "#5f6368", "#f1f3f4"
# Pixels:
PLOT_WIDTH, MARGIN, FRAME_GAP, PERCENT_WIDTH = 960, 20, 6, 70
TIMELINE_HEIGHT, BAR_HEIGHT, STRIP_HEIGHT, ROW_GAP = 52, 30, 18, 12
MIN_LABEL_WIDTH, LETTER_WIDTH = 110, 8

MAX_LABEL_LETTERS = 30  # per line
MIN_COLUMNS = 6  # a single image does not fill the whole width
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds
MAX_TICKS = 10


@dataclass(frozen=True)
class Timeline:
    """Class probabilities over time, from W clips.

    Attributes:
        seconds: length of the video.
        starts, ends: (W,) seconds of the clips, in order.
        probabilities: (W, k) of k classes.
        segments: start, end and class of each segment, drawn as a strip above the classes; the class is a column of
            ``probabilities``, or None for another class.
    """

    seconds: float
    starts: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    segments: Sequence[tuple[float, float, int | None]] = ()


def prediction_figure(
    frames: np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray,
    timeline: Timeline | None = None,
    title: str = "",
    caption: str = "",
) -> np.ndarray:
    """Draw frames in a row and, below them, one row per class, uint8 (height, width, 3).

    Args:
        frames: uint8 (N, H, W, 3), evenly spaced over the video.
        class_names: of the k classes to display.
        probabilities: (k,), written at the right: of the whole video, or the mean of the timeline.
        timeline: of the same k classes; None: bars show ``probabilities``.
        title, caption: text above the frames, such as the file name and the number of clips.
    """
    labels = [_class_label(name) for name in class_names]
    letters = max((len(line) for label in labels for line in label.splitlines()), default=0)
    left = MARGIN + max(MIN_LABEL_WIDTH, LETTER_WIDTH * letters) + 12
    percent_left = left + PLOT_WIDTH + 12
    columns = max(len(frames), MIN_COLUMNS)
    tile = (PLOT_WIDTH - FRAME_GAP * (columns - 1)) // columns
    frames_top = MARGIN + 56
    strip_top = frames_top + tile + 20
    rows_top = strip_top + (STRIP_HEIGHT + ROW_GAP if timeline and timeline.segments else 0)
    row_height = TIMELINE_HEIGHT if timeline else BAR_HEIGHT
    ticks_height = 44 if timeline else 8
    height = rows_top + len(labels) * (row_height + ROW_GAP) + ticks_height + MARGIN // 2
    figure = new_figure(left + PLOT_WIDTH + PERCENT_WIDTH + MARGIN, height)

    title = textwrap.shorten(title, 90, placeholder=" …") or title[:90]
    add_text(figure, left, MARGIN, title, fontsize=13, weight="bold")
    add_text(figure, left, MARGIN + 26, caption, fontsize=9.5, color=GREY)
    if timeline:
        add_text(figure, percent_left, rows_top - 8, "mean\nover time", va="bottom", fontsize=9, color=GREY)
        if timeline.segments:
            add_text(figure, left - 12, strip_top + STRIP_HEIGHT / 2, "segments", ha="right", va="center", color=GREY)
            _draw_segments(add_axes(figure, left, strip_top, PLOT_WIDTH, STRIP_HEIGHT), timeline)
    for row, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        y = rows_top + row * (row_height + ROW_GAP)
        add_text(figure, left - 12, y + row_height / 2, label, ha="right", va="center", fontsize=10)
        add_text(figure, percent_left, y + row_height / 2, f"{100 * probability:.1f} %", va="center", fontsize=11)
        axes = add_axes(figure, left, y, PLOT_WIDTH, row_height)
        axes.set(ylim=(0, 1), yticks=[], facecolor=PALE_GREY)
        axes.spines[:].set_visible(False)
        color = _color(row)
        if timeline:
            _draw_timeline(axes, timeline, row, color, tick_labels=row == len(labels) - 1)
        else:
            axes.set(xlim=(0, 1), xticks=[])
            axes.barh(0.5, probability, height=1, color=color)
    # With a timeline, each frame is placed above its time.
    return _paste_frames(render(figure), frames, left, frames_top, tile, len(frames) if timeline else columns)


def _color(row: int | None) -> str:
    """The colour of a class; grey for one that is not shown."""
    return GREY if row is None else PALETTE[row % len(PALETTE)]


def _draw_segments(axes: Axes, timeline: Timeline) -> None:
    axes.set(xlim=(0, timeline.seconds), ylim=(0, 1), xticks=[], yticks=[], facecolor=PALE_GREY)
    axes.spines[:].set_visible(False)
    spans = [(start, end - start) for start, end, _ in timeline.segments]
    axes.broken_barh(spans, (0, 1), facecolors=[_color(row) for _, _, row in timeline.segments], linewidth=0)


def _draw_timeline(axes: Axes, timeline: Timeline, row: int, color: str, tick_labels: bool) -> None:
    """Draw the probabilities of class ``row`` as steps; a step extends halfway to the centres of the adjacent clips."""
    centres = (timeline.starts + timeline.ends) / 2
    edges = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [timeline.seconds]])
    axes.set(xlim=(0, timeline.seconds))
    axes.axhline(0.5, color="white", linewidth=1.2, zorder=0)
    axes.stairs(timeline.probabilities[:, row], edges, fill=True, color=color)
    step = next((step for step in TICK_STEPS if timeline.seconds <= MAX_TICKS * step), timeline.seconds / MAX_TICKS)
    ticks = np.arange(0, timeline.seconds, step)
    axes.set_xticks(ticks, [format_time(tick, tenths=step < 1) for tick in ticks])
    axes.tick_params(length=4 if tick_labels else 0, labelbottom=tick_labels, labelsize=9, color=GREY, labelcolor=GREY)


def _paste_frames(image: np.ndarray, frames: np.ndarray, left: int, top: int, tile: int, slots: int) -> np.ndarray:
    """``image`` with each frame in the centre of its slot; ``slots`` slots share the width of the plots."""
    for index, frame in enumerate(frames):
        x = left + round((index + 0.5) * (PLOT_WIDTH + FRAME_GAP) / slots - (tile + FRAME_GAP) / 2)
        resized = Image.fromarray(frame).resize((tile, tile), Image.Resampling.LANCZOS)
        image[top : top + tile, x : x + tile] = resized
    return image


def _class_label(name: str) -> str:
    """A class name on at most two lines."""
    name = textwrap.shorten(name, 2 * MAX_LABEL_LETTERS, placeholder=" …")
    return "\n".join(textwrap.wrap(name, MAX_LABEL_LETTERS))
