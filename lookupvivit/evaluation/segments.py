"""A timeline: the predictions of successive clips, merged into segments of one class.

The class at a moment is the most probable one on average over all clips that cover this moment. It is determined at the
centre of every clip, because clips may overlap; where they do not, it is the class of the clip itself. Successive clips
of one class form a segment. The boundary between two segments lies halfway between the centres of the adjacent clips.
The first segment starts at 0; the last one ends with the video.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np


class Segment(NamedTuple):
    """Successive clips of one class.

    Attributes:
        start, end: seconds.
        class_name: the class.
        probability: its mean over the clips of the segment, each averaged with the clips that cover its centre.
    """

    start: float
    end: float
    class_name: str
    probability: float


class _Clip(NamedTuple):
    start: float
    end: float
    probabilities: np.ndarray

    @property
    def centre(self) -> float:
        return (self.start + self.end) / 2


class SegmentMerger:
    """Merges clips into segments while they arrive, in constant memory.

    Args:
        class_names: K names.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._class_names = class_names
        self._clips = deque[_Clip]()  # those that can cover a centre whose class is not known yet
        self._waiting = deque[float]()  # such centres
        self._start, self._centre = 0.0, 0.0  # of the current segment, and of its latest clip
        self._label: int | None = None
        self._sum, self._count = 0.0, 0  # of the probabilities of its clips

    def add(self, start: float, end: float, probabilities: np.ndarray) -> list[Segment]:
        """Add a clip, whose start is not before those of earlier clips; the segments that are complete now.

        A clip's class is known when a clip starts after its centre.

        Args:
            start, end: seconds.
            probabilities: (K,).
        """
        segments = []
        while self._waiting and self._waiting[0] < start:
            segments += self._classify(self._waiting.popleft())
        self._clips.append(_Clip(start, end, probabilities))
        self._waiting.append(self._clips[-1].centre)
        return segments

    def finish(self, seconds: float) -> list[Segment]:
        """The remaining segments of a video that ends here."""
        segments = []
        while self._waiting:
            segments += self._classify(self._waiting.popleft())
        return [*segments, self._segment(seconds)] if self._label is not None else segments

    @property
    def current(self) -> tuple[float, str] | None:
        """Start and class of the segment that is not complete; None at first."""
        return None if self._label is None else (self._start, self._class_names[self._label])

    def _classify(self, centre: float) -> list[Segment]:
        """Determine the class at the centre of a clip; the segment that ended there, if one did."""
        while self._clips[0].end <= centre:  # clips are in order of their starts and of their ends
            self._clips.popleft()
        mean = np.mean([clip.probabilities for clip in self._clips if clip.start <= centre], axis=0)
        label, segments = int(mean.argmax()), []
        if label != self._label:
            boundary = (self._centre + centre) / 2
            if self._label is not None:
                segments, self._start = [self._segment(boundary)], boundary
            self._label, self._sum, self._count = label, 0.0, 0
        self._centre = centre
        self._sum, self._count = self._sum + float(mean[label]), self._count + 1
        return segments

    def _segment(self, end: float) -> Segment:
        assert self._label is not None
        return Segment(self._start, end, self._class_names[self._label], self._sum / self._count)
