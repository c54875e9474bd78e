"""Clips of a stream against the clips that are read from the same frames when all of them are known."""

import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import ArrayReader, Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.streaming import SlidingWindows, stream_clips

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(10), Fraction(24000, 1001), Fraction(7, 2)]


class Reader(ArrayReader):
    """An array at any frame rate."""

    def __init__(self, frames, fps):
        super().__init__(frames)
        self.fps = fps


@given(
    sampling=st.builds(
        Sampling,
        frames=st.integers(1, 9),
        stride=st.integers(1, 5),
        target_fps=st.one_of(st.none(), st.floats(0.5, 60, allow_nan=False)),
    ),
    fps=st.sampled_from(RATES),
    step=st.one_of(st.none(), st.fractions(Fraction(1, 100), 8, max_denominator=500)),
    num_frames=st.integers(1, 160),
)
def test_windows_are_the_clips_of_a_video_of_known_length(sampling, fps, step, num_frames):
    windows, found = SlidingWindows(sampling, fps, step), []
    first_needed = 0
    for number in range(1, num_frames + 1):
        if clip := windows.add_frame():
            found.append(clip)
            assert clip.end <= number / fps and clip.indices.max() < number
            assert clip.indices.min() >= first_needed  # before this frame was added
        first_needed = windows.first_needed
    if last := windows.finish():
        found.append(last)
        assert last.indices.min() >= first_needed
    expected = sampling.sliding_clips(num_frames, fps, step)
    assert [clip[:2] for clip in found] == [clip[:2] for clip in expected]
    assert all(np.array_equal(one.indices, other.indices) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("method", ["bilinear", "area"])
@pytest.mark.parametrize("target_fps", [None, 8.0])
@pytest.mark.parametrize(("chunk", "between"), [(1, None), (7, 0.24), (32, 0.9)])
def test_a_stream_has_the_bits_of_a_file(method, target_fps, chunk, between):
    frames = np.random.default_rng(0).integers(0, 256, (75, 30, 44, 3), dtype=np.uint8)
    preprocess = Preprocess(Sampling(4, 2, target_fps), short_side=20, crop=16, resize=method)
    chunks = (frames[first : first + chunk] for first in range(0, len(frames), chunk))
    clips = [
        (float(clip.start), float(clip.end), clip.video()) for clip in stream_clips(preprocess, chunks, 25, between)
    ]
    expected = list(preprocess.clips(Reader(frames, Fraction(25)), between))
    assert len(clips) == len(expected) > 2
    for found, clip in zip(clips, expected, strict=True):
        assert found[:2] == clip[:2] and torch.equal(found[2], clip.video)


@pytest.mark.parametrize("between", [0.04, 0.32, 3.0])
def test_memory_is_constant(between):
    """A clip lasts 8 frame periods, whose cropped frames are kept because the last clip may start at any of them."""
    preprocess, created = Preprocess(Sampling(4, 2), short_side=20, crop=16), []

    def chunks():
        for index in range(400):
            frame = np.full((1, 20, 28, 3), index % 256, np.uint8)  # not resized, so that views would keep it
            created.append(weakref.ref(frame))
            yield frame

    most, cropped = 0, 0
    for clip in stream_clips(preprocess, chunks(), 25, between):
        most, cropped = max(most, sum(frame() is not None for frame in created)), max(cropped, len(clip.frames))
    assert len(created) == 400 and most <= 2 and cropped <= 8 + 1


def test_a_short_stream_is_repeated_and_an_empty_one_has_no_clip():
    preprocess = Preprocess(Sampling(4, 2), short_side=20, crop=16)
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    [clip] = stream_clips(preprocess, [frames], 25)
    assert torch.equal(clip.video(), preprocess.clip(frames)) and clip.indices.tolist() == [0, 2, 1, 0]
    assert list(stream_clips(preprocess, [], 25)) == []


@pytest.mark.parametrize(
    ("chunk", "fps", "between", "key"),
    [
        (np.zeros((1, 24, 32, 3)), 25, None, "frames"),
        (np.zeros((24, 32, 3), np.uint8), 25, None, "frames"),
        (np.zeros((1, 24, 32, 3), np.uint8), 0, None, "fps"),
        (np.zeros((1, 24, 32, 3), np.uint8), 25, -1, "seconds_between"),
    ],
)
def test_invalid_arguments_are_named(chunk, fps, between, key):
    with pytest.raises(DataError, match=f"^{key}: found"):
        list(stream_clips(Preprocess(Sampling(4, 2), 20, 16), [chunk], fps, between))
    with pytest.raises(DataError, match="segments"):
        SlidingWindows(Sampling(4, segments=True), Fraction(25))
