"""Segments against a brute-force oracle on a grid of moments."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookupvivit.evaluation.segments import SegmentMerger

CLASSES = ("a", "b", "c")


def merged(starts, ends, timeline, seconds):
    merger, segments = SegmentMerger(CLASSES), []
    for start, end, probabilities in zip(starts, ends, timeline, strict=True):
        segments += merger.add(start, end, probabilities)
    return segments + merger.finish(seconds)


@st.composite
def timelines(draw):
    """Clips of a fixed length at a fixed step, with gaps or overlap, and one that ends with the video."""
    length, step, count = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    starts = [index * step for index in range(count)]
    if extra := draw(st.integers(0, step - 1)):
        starts.append(starts[-1] + extra)
    counts = draw(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=len(starts), max_size=len(starts)))
    starts = np.array(starts, float)
    return starts, starts + length, np.array(counts, float) / 4, starts[-1] + length


@given(timelines())
def test_every_moment_has_the_class_of_the_nearest_centre(case):
    starts, ends, timeline, seconds = case
    segments, centres = merged(*case), (starts + ends) / 2
    assert segments[0].start == 0 and segments[-1].end == seconds
    for before, after in pairwise(segments):
        assert before.end == after.start and before.class_name != after.class_name
    for moment in np.arange(0.0317, seconds, 0.1103):  # never at the same distance from two centres
        nearest = centres[np.abs(centres - moment).argmin()]
        mean = timeline[(starts <= nearest) & (nearest < ends)].mean(axis=0)
        [segment] = [segment for segment in segments if segment.start <= moment < segment.end]
        assert segment.class_name == CLASSES[mean.argmax()]


def test_overlapping_clips_outvote_one():
    timeline = np.full((9, 3), 0.1) + 0.8 * np.eye(3)[[0, 0, 1, 0, 0, 2, 2, 2, 2]]
    starts = np.arange(9) * 0.5
    segments = merged(starts, starts + 2, timeline, 6.0)
    assert [(segment.start, segment.end, segment.class_name) for segment in segments] == [
        (0, 3.25, "a"),
        (3.25, 6, "c"),
    ]


def test_a_segment_is_reported_when_a_later_clip_cannot_change_it():
    merger = SegmentMerger(CLASSES)
    assert merger.current is None and merger.finish(1.0) == []
    assert merger.add(0.0, 2.0, np.array([1, 0, 0])) == [] and merger.current is None
    assert merger.add(2.0, 4.0, np.array([0, 1, 0])) == [] and merger.current == (0, "a")
    assert merger.add(4.0, 6.0, np.array([0, 1, 0])) == [(0, 2, "a", 1)] and merger.current == (2, "b")
    assert merger.finish(6.5) == [(2, 6.5, "b", pytest.approx(1))]
