"""The classes that a model predicts for one file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lookupvivit.evaluation.segments import Segment, SegmentMerger


@dataclass(frozen=True)
class Prediction:
    """The classes of one video.

    Attributes:
        path: of the file.
        seconds: duration of the video.
        class_names: K names.
        probabilities: (K,), the answer: softmax of the mean logits of the views; with a timeline, the mean over time.
            Of a model for several classes per video, the sigmoid of each logit instead; they need not sum to 1.
        logits: (K,), mean of the raw logits of the views, or of the timeline's clips.
        num_views: the number of views, or of the timeline's clips.
        starts, ends: (W,) seconds of the timeline's clips; W is 0 without a timeline.
        timeline: (W, K) probabilities of each of these clips.
        frames: uint8 (N, crop, crop, 3) as the model saw them, evenly spaced over the timeline or over the views.
    """

    path: str
    seconds: float
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    logits: np.ndarray
    num_views: int
    starts: np.ndarray
    ends: np.ndarray
    timeline: np.ndarray
    frames: np.ndarray

    @property
    def has_timeline(self) -> bool:
        return len(self.starts) > 0

    def top(self, count: int) -> list[tuple[str, float]]:
        """Names and probabilities of the most probable classes."""
        return [(self.class_names[k], float(self.probabilities[k])) for k in top_classes(self.probabilities, count)]

    def segments(self) -> list[Segment]:
        """The timeline, with successive clips of one class merged; see `lookupvivit.evaluation.segments`."""
        merger, segments = SegmentMerger(self.class_names), []
        for start, end, probabilities in zip(self.starts, self.ends, self.timeline, strict=True):
            segments += merger.add(start, end, probabilities)
        return segments + merger.finish(self.seconds)


def top_classes(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` most probable classes, most probable first; of equals, the lower index comes first."""
    return np.argsort(-probabilities, kind="stable")[:count]
