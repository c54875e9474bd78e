"""Frame sampling and crop positions, against hand-computed numbers, a looped video and invariants."""

import bisect
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.io.errors import DataError
from data_pipelines.sampling import (
    Sampling,
    frame_indices,
    random_segments,
    random_start,
    resized_size,
    spatial_crops,
    uniform_segments,
    uniform_starts,
)

RATES = st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(12), Fraction(1, 2), Fraction(1000)])
LENGTHS = st.integers(1, 400)
FRAMES, STRIDES = st.integers(1, 40), st.integers(1, 8)
SEEDS = st.integers(0, 2**32)


def looped(length, start, frames, stride):
    """A clip of a video that is played again and again."""
    repetitions = (start + frames * stride) // length + 1
    return np.tile(np.arange(length), repetitions)[start : start + frames * stride : stride]


# Evenly spaced clips


@pytest.mark.parametrize(
    ("num_frames", "num_clips", "starts"),
    [
        (250, 4, [0, 62, 124, 186]),  # 10 s at 25 fps: ViViT's test of Kinetics-400, 250 - 32 * 2 = 186
        (250, 1, [93]),
        (74, 4, [0, 3, 6, 10]),  # 3.33 and 6.67 are truncated, not rounded
        (74, 2, [0, 10]),
        (66, 5, [0, 0, 1, 1, 2]),
        (64, 4, [0, 0, 0, 0]),  # exactly one clip long
        (20, 3, [0, 0, 0]),  # shorter than a clip
    ],
)
def test_starts_of_evenly_spaced_clips(num_frames, num_clips, starts):
    assert uniform_starts(num_frames, frames=32, stride=2, num_clips=num_clips) == starts
    clips = Sampling(frames=32, stride=2).test_clips(num_frames, Fraction(25), num_clips)
    assert clips[:, 0].tolist() == starts


@given(LENGTHS, FRAMES, STRIDES, st.integers(2, 12))
def test_evenly_spaced_clips_reach_both_ends_of_the_video(length, frames, stride, num_clips):
    starts = uniform_starts(length, frames, stride, num_clips)
    assert starts[0] == 0
    assert starts[-1] + frames * stride == max(length, frames * stride)
    distances = np.diff(starts)
    assert distances.max() - distances.min() <= 1


@given(LENGTHS, FRAMES, STRIDES)
def test_a_single_clip_is_central(length, frames, stride):
    (start,) = uniform_starts(length, frames, stride, num_clips=1)
    after = length - frames * stride - start  # frames behind the clip
    assert start == 0 if length <= frames * stride else after - start in (0, 1)


@given(LENGTHS, FRAMES, STRIDES, st.data())
def test_frames_continue_at_the_first_one_past_the_end(length, frames, stride, data):
    start = data.draw(st.integers(0, length - 1))
    indices = frame_indices(start, frames, stride, length)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, looped(length, start, frames, stride))


# Random clips


@given(LENGTHS, FRAMES, STRIDES, SEEDS)
def test_a_random_clip_does_not_wrap_unless_the_video_is_too_short(length, frames, stride, seed):
    sampling = Sampling(frames, stride)
    indices = sampling.training_clip(length, Fraction(25), np.random.default_rng(seed))
    if (frames - 1) * stride < length:
        np.testing.assert_array_equal(indices, np.arange(indices[0], indices[0] + frames * stride, stride))
    else:
        np.testing.assert_array_equal(indices, looped(length, 0, frames, stride))


def test_random_starts_are_uniform_and_reach_both_ends():
    rng = np.random.default_rng(0)
    starts = [random_start(num_frames=12, frames=4, stride=3, rng=rng) for _ in range(3000)]
    counts = np.bincount(starts)
    assert len(counts) == 3  # the last one samples frames 2, 5, 8 and 11
    assert (abs(counts - 1000) < 100).all()  # within 4 standard deviations


# Target frame rate


@given(
    length=LENGTHS,
    fps=RATES,
    frames=st.integers(1, 12),
    stride=STRIDES,
    target=st.sampled_from([25.0, 30.0, 30000 / 1001]),
    data=st.data(),
)
def test_a_target_rate_selects_the_frames_on_screen_at_evenly_spaced_times(length, fps, frames, stride, target, data):
    start = data.draw(st.integers(0, length - 1))
    indices = Sampling(frames, stride, target).clip_from(start, length, fps)
    interval = stride / Fraction(target).limit_denominator(1001)
    times = [start / fps + i * interval for i in range(frames)]
    shown_from = [i / fps for i in range(int(times[-1] * fps) + 2)]  # of each frame of the looped video
    on_screen = [bisect.bisect_right(shown_from, time) - 1 for time in times]
    assert indices.tolist() == [index % length for index in on_screen]


@given(LENGTHS, RATES, FRAMES, STRIDES)
def test_a_target_rate_equal_to_the_videos_changes_nothing(length, fps, frames, stride):
    with_target, without = Sampling(frames, stride, float(fps)), Sampling(frames, stride)
    np.testing.assert_array_equal(with_target.test_clips(length, fps, 4), without.test_clips(length, fps, 4))
    assert with_target.clip_seconds(length, fps) == without.clip_seconds(length, fps)


def test_target_rates_by_hand():
    assert Sampling(4, 2, 30).test_clips(16, Fraction(60), 1).tolist() == [[0, 4, 8, 12]]
    assert Sampling(4, 1, 30).test_clips(2, Fraction(15), 1).tolist() == [[0, 0, 1, 1]]


@given(LENGTHS, RATES, FRAMES, STRIDES, st.sampled_from([25.0, 30000 / 1001]), SEEDS)
def test_a_random_clip_at_a_target_rate_lies_in_the_video(length, fps, frames, stride, target, seed):
    sampling = Sampling(frames, stride, target)
    indices = sampling.training_clip(length, fps, np.random.default_rng(seed))
    assert indices.min() >= 0 and indices.max() < length
    if sampling.clip_seconds(10**6, fps) <= length / fps:
        assert (np.diff(indices) >= 0).all()


# Segments


@given(LENGTHS, FRAMES, SEEDS)
def test_random_segments_take_one_frame_of_each_segment(length, frames, seed):
    indices = random_segments(length, frames, np.random.default_rng(seed))
    assert indices.shape == (frames,) and indices.dtype == np.int64
    for i, index in enumerate(indices.tolist()):
        assert Fraction(i * length, frames) - 1 < index < Fraction((i + 1) * length, frames)


def test_random_segments_are_uniform_within_a_segment():
    rng = np.random.default_rng(0)
    first = [random_segments(num_frames=80, frames=8, rng=rng)[0] for _ in range(2000)]
    assert (abs(np.bincount(first, minlength=10) - 200) < 60).all()


@given(LENGTHS, FRAMES, st.integers(1, 10))
def test_uniform_segments_are_ordered_and_symmetric_in_time(length, frames, num_clips):
    indices = uniform_segments(length, frames, num_clips)
    assert indices.shape == (num_clips, frames)
    in_time = indices.T.flatten()  # segment by segment, and within a segment clip by clip
    assert (np.diff(in_time) >= 0).all()
    mirrored = in_time + in_time[::-1]  # a position on a frame boundary belongs to the later frame
    assert ((mirrored == length - 1) | (mirrored == length)).all()
    segment_ends = [Fraction((i + 1) * length, frames) for i in range(frames)]
    assert all(index < end for row in indices.tolist() for index, end in zip(row, segment_ends, strict=True))
    if length >= 2 * frames * num_clips:
        assert (np.diff(in_time) > 0).all()


def test_uniform_segments_by_hand():
    sampling = Sampling(8, segments=True)
    assert sampling.test_clips(16, Fraction(25), 1).tolist() == [[1, 3, 5, 7, 9, 11, 13, 15]]
    assert sampling.test_clips(16, Fraction(25), 2).tolist() == [list(range(0, 16, 2)), list(range(1, 16, 2))]
    assert sampling.test_clips(1, Fraction(25), 2).tolist() == [[0] * 8] * 2
    assert sampling.clip_from(8, 16, Fraction(25)).tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


# Clips over a whole video


@given(
    length=st.integers(1, 300),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1, 2)]),
    frames=st.integers(1, 9),
    stride=st.integers(1, 9),
    segments=st.booleans(),
    seconds=st.sampled_from([None, 0.01, 0.3, 4]),
)
def test_sliding_clips_cover_the_whole_video(length, fps, frames, stride, segments, seconds):
    sampling = Sampling(frames, stride, None, segments)
    spans = sampling.sliding_clips(length, fps, None if seconds is None else Fraction(seconds))
    duration = frames * stride / fps
    assert spans[0].start == 0 and spans[-1].end == length / fps
    for span in spans:
        assert 0 <= span.start < span.end <= length / fps
        assert span.indices.shape == (frames,) and span.indices.min() >= 0 and span.indices.max() < length
        if segments or span.end - span.start == duration:
            assert span.start * fps <= span.indices.min() and span.indices.max() < span.end * fps
    for span, following in pairwise(spans):
        assert following.start > span.start
        if segments or seconds is None or seconds <= duration:
            assert following.start <= span.end, "a gap between two clips"


def test_sliding_clips_by_hand():
    sampling = Sampling(frames=4, stride=3)  # 12 frames, 0.48 s
    spans = sampling.sliding_clips(30, Fraction(25))
    assert [(float(span.start), float(span.end)) for span in spans] == [(0, 0.48), (0.48, 0.96), (0.72, 1.2)]
    spans = sampling.sliding_clips(30, Fraction(25), seconds_between=Fraction(1, 5))
    assert [span.indices[0] for span in spans] == [0, 5, 10, 15, 18]


# Crops


def test_crops_by_hand():
    assert spatial_crops(256, 340, 224, 1) == [(16, 58)]
    assert spatial_crops(256, 340, 224, 3) == [(16, 0), (16, 58), (16, 116)]
    assert spatial_crops(340, 256, 224, 3) == [(0, 16), (58, 16), (116, 16)]
    assert spatial_crops(224, 224, 224, 3) == [(0, 0)] * 3
    assert spatial_crops(225, 227, 224, 1) == [(1, 2)]  # 0.5 and 1.5 are rounded up


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 512))
def test_the_resized_longer_side_is_rounded_down(height, width, short_side):
    new = resized_size(height, width, short_side)
    exact = Fraction(max(height, width) * short_side, min(height, width))
    assert min(new) == short_side
    assert 0 <= exact - max(new) < 1
    assert (new[0] <= new[1]) == (height <= width) or new[0] == new[1]


# Impossible values


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("frames", {"frames": 0}),
        ("frames", {"frames": True}),
        ("stride", {"frames": 4, "stride": 1.5}),
        ("target_fps", {"frames": 4, "target_fps": 0}),
        ("target_fps", {"frames": 4, "target_fps": float("inf")}),
    ],
)
def test_impossible_sampling_settings(name, arguments):
    with pytest.raises(DataError, match=f"{name}: found"):
        Sampling(**arguments)


def test_impossible_requests():
    sampling = Sampling(4, segments=False)
    for call in (
        lambda: frame_indices(0, 4, 1, num_frames=0),
        lambda: random_segments(0, 4, np.random.default_rng(0)),
        lambda: uniform_segments(0, 4, 1),
        lambda: sampling.sliding_clips(0, Fraction(25)),
    ):
        with pytest.raises(DataError, match="num_frames: found 0"):
            call()
    for call in (
        lambda: uniform_starts(10, 4, 1, num_clips=0),
        lambda: uniform_segments(10, 4, num_clips=0),
    ):
        with pytest.raises(DataError, match="num_clips: found 0"):
            call()
    with pytest.raises(DataError, match="num_crops: found 5"):
        spatial_crops(256, 340, 224, 5)
