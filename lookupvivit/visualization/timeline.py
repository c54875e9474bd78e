"""What a model says of a video, on one sheet: frames, and the probable classes over time or as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lookupvivit.visualization.canvas import COLOURS, _axes, _figure, _rendered, _text

GREY, PALE = "#5f6368", "#f1f3f4"
PLOT, MARGIN, GAP, PERCENT = 960, 20, 6, 70  # pixels: width of frames and plots, borders, between frames, right column
LABEL_LETTERS, LABEL_MIN = 30, 110
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds
COLUMNS_MIN = 6  # that the frames' size is made for: a single picture does not fill the sheet


def prediction_sheet(
    frames: np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray,
    seconds: float,
    starts: np.ndarray,
    ends: np.ndarray,
    timeline: np.ndarray,
    title: str = "",
    caption: str = "",
) -> np.ndarray:
    """Frames in a row and a row per class below, uint8 (height, width, 3).

    Args:
        frames: uint8 (N, H, W, 3), evenly spread over the video.
        class_names, probabilities: of the k classes to show; (k,) of the whole video, or the mean of the timeline,
            written at the right.
        seconds: length of the video.
        starts, ends: (W,) seconds of the clips of the timeline; of none, bars show the probabilities.
        timeline: (W, k) probabilities over time.
        title, caption: text above, such as the file and how it was looked at.
    """
    timed = len(starts) > 0
    labels = [_label(name) for name in class_names]
    letters = max((len(line) for label in labels for line in label.splitlines()), default=0)
    left = MARGIN + max(LABEL_MIN, 8 * letters) + 12
    columns = max(len(frames), COLUMNS_MIN)
    tile = (PLOT - GAP * (columns - 1)) // columns
    top = MARGIN + 56
    row, space = (52, 12) if timed else (30, 12)
    plots = top + tile + 20
    height = plots + len(labels) * (row + space) + (44 if timed else 8) + MARGIN // 2
    width = left + PLOT + PERCENT + MARGIN
    figure = _figure(width, height)
    _text(figure, left, MARGIN, textwrap.shorten(title, 90, placeholder=" …") or title[:90], fontsize=13, weight="bold")
    _text(figure, left, MARGIN + 26, caption, fontsize=9.5, color=GREY)

    _text(figure, left + PLOT + 12, plots - 8, "mean\nover time" if timed else "", va="bottom", fontsize=9, color=GREY)
    for number, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        y, colour = plots + number * (row + space), COLOURS[number % len(COLOURS)]
        _text(figure, left - 12, y + row / 2, label, ha="right", va="center", fontsize=10)
        _text(figure, left + PLOT + 12, y + row / 2, f"{100 * probability:.1f} %", va="center", fontsize=11)
        axes = _axes(figure, left, y, PLOT, row)
        axes.set(ylim=(0, 1), yticks=[], facecolor=PALE)
        axes.spines[:].set_visible(False)
        if not timed:
            axes.set(xlim=(0, 1), xticks=[])
            axes.barh(0.5, probability, height=1, color=colour)
            continue
        middles = (starts + ends) / 2
        edges = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [seconds]])
        axes.set(xlim=(0, seconds))
        axes.axhline(0.5, color="white", linewidth=1.2, zorder=0)
        axes.stairs(timeline[:, number], edges, fill=True, color=colour)
        step = next((step for step in TICKS if seconds <= 10 * step), seconds / 10)
        moments = np.arange(0, seconds, step)
        axes.set_xticks(moments, [clock(moment, tenths=step < 1) for moment in moments])
        last = number == len(labels) - 1
        axes.tick_params(length=4 if last else 0, labelbottom=last, labelsize=9, color=GREY, labelcolor=GREY)
    sheet = _rendered(figure)
    slots = len(frames) if timed else columns  # over time, each frame stands above its moment
    for number, frame in enumerate(frames):
        x = left + round((number + 0.5) * (PLOT + GAP) / slots - (tile + GAP) / 2)
        sheet[top : top + tile, x : x + tile] = Image.fromarray(frame).resize((tile, tile), Image.Resampling.LANCZOS)
    return sheet


def clock(seconds: float, tenths: bool = False) -> str:
    """A moment as m:ss or h:mm:ss, on request with tenths."""
    whole, tenth = divmod(round(seconds * 10), 10) if tenths else (round(seconds), 0)
    minutes, second = divmod(whole, 60)
    text = f"{minutes}:{second:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
    return f"{text}.{tenth}" if tenths else text


def _label(name: str) -> str:
    """A class's name in at most two lines."""
    return "\n".join(textwrap.wrap(textwrap.shorten(name, 2 * LABEL_LETTERS, placeholder=" …"), LABEL_LETTERS))
