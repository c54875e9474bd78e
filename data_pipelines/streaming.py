"""Clips of a video whose frames arrive one after the other, and whose length is not known in advance.

They are the clips that `Preprocess.clips` reads from a file, bit for bit, as soon as their frames have arrived. Frames
are cropped when they arrive and dropped when no clip can need them any more, so that a video of any length needs the
memory of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import Preprocess, exact_seconds
from data_pipelines.sampling import MAX_RATE_DENOMINATOR, ClipSpan, Sampling


class StreamedClip(NamedTuple):
    """A clip of a stream.

    Attributes:
        start, end: seconds from the first frame of the stream.
        indices: of its frames, int64 (T,).
        frames: cropped frames by index, uint8 (3, crop, crop). Only valid until the next clip is requested.
    """

    start: Fraction
    end: Fraction
    indices: np.ndarray
    frames: dict[int, Tensor]

    def video(self, first: int = 0, last: int | None = None) -> Tensor:
        """Frames ``first`` to ``last`` of the clip, the end excluded; all by default: uint8 (3, T, crop, crop)."""
        return torch.stack([self.frames[index] for index in self.indices[first:last].tolist()], dim=1)


class SlidingWindows:
    """The clips of `Sampling.sliding_clips`, one by one, while the frames of a video are counted.

    Clip i starts at frame floor(i * step) and is complete when the frame periods that it covers have passed. At the end
    of the video, one more clip covers what is left; it starts as late as possible.

    Args:
        sampling: selects the frames of a clip.
        fps: frame rate.
        seconds_between: time between the starts of two clips, by default the duration of a clip.

    Attributes:
        num_frames: the number of frames that have arrived.

    Raises:
        DataError: ``seconds_between`` is not positive, or ``sampling`` spreads a clip over the whole video.
    """

    def __init__(self, sampling: Sampling, fps: Fraction, seconds_between: Fraction | None = None) -> None:
        if sampling.segments:
            raise DataError("sampling: found segments, which spread a clip over a whole video, expected clip")
        if seconds_between is not None and seconds_between <= 0:
            raise DataError(f"seconds_between: found {float(seconds_between):g}, expected a number above 0")
        self._sampling, self._fps = sampling, fps
        self._length = sampling.clip_periods(fps)
        self._step = self._length if seconds_between is None else seconds_between * fps  # frames, as a fraction
        self._next = 0  # the number i of the next clip
        self._last_start = -1
        self.num_frames = 0

    @property
    def overlap(self) -> bool:
        """Whether two clips can have frames in common, apart from the last one."""
        return self._step < self._length

    @property
    def first_needed(self) -> int:
        """The index of the first frame that a later clip can need."""
        return min(self._next_start, self._latest)

    def add_frame(self) -> ClipSpan | None:
        """Count a frame; the clip that is complete with it, if there is one."""
        self.num_frames += 1
        # The latest start increases by one frame at a time: a clip is complete when the latest start is its own.
        if self.num_frames < self._length or self._next_start > self._latest:
            return None
        while self._next_start <= self._latest:  # steps may be shorter than a frame
            self._next += 1
        return self._clip(self._latest)

    def finish(self) -> ClipSpan | None:
        """End the video; its last clip, if that differs from the one before it. A short video is repeated."""
        if not self.num_frames or self._latest == self._last_start:
            return None
        return self._clip(self._latest)

    @property
    def _next_start(self) -> int:
        return math.floor(self._next * self._step)

    @property
    def _latest(self) -> int:
        """The latest start of a clip within the frames that have arrived."""
        return max(0, math.floor(self.num_frames - self._length))

    def _clip(self, start: int) -> ClipSpan:
        self._last_start = start
        indices = self._sampling.clip_from(start, self.num_frames, self._fps)
        return ClipSpan(start / self._fps, min(start + self._length, self.num_frames) / self._fps, indices)


def stream_clips(
    preprocess: Preprocess, chunks: Iterable[np.ndarray], fps: Fraction | float, seconds_between: float | None = None
) -> Iterator[StreamedClip]:
    """Yield the central crops of the clips of a stream, each when its last frame has arrived.

    Args:
        preprocess: of the model.
        chunks: consecutive frames, uint8 (n, H, W, 3), n of any value. Frames may differ in size.
        fps: frame rate; the nearest fraction with a denominator up to `MAX_RATE_DENOMINATOR` is used.
        seconds_between: time between the starts of two clips, by default the duration of a clip.

    Raises:
        DataError: frames of another type or shape, or an invalid argument.
    """
    windows = sliding_windows(preprocess, fps, seconds_between)
    frames: dict[int, Tensor] = {}  # in order
    for chunk in chunks:
        for frame in preprocess.crop_frames(chunk):
            frames[windows.num_frames] = frame
            if span := windows.add_frame():
                yield StreamedClip(*span, frames)
            while (oldest := next(iter(frames))) < windows.first_needed:
                del frames[oldest]
    if span := windows.finish():
        yield StreamedClip(*span, frames)


def sliding_windows(preprocess: Preprocess, fps: Fraction | float, seconds_between: float | None) -> SlidingWindows:
    """The windows of `stream_clips`; raises as it does for invalid arguments."""
    if not (math.isfinite(fps) and fps > 0):
        raise DataError(f"fps: found {fps}, expected a number above 0")
    spacing = None if seconds_between is None else exact_seconds(seconds_between)
    return SlidingWindows(preprocess.sampling, Fraction(fps).limit_denominator(MAX_RATE_DENOMINATOR), spacing)
