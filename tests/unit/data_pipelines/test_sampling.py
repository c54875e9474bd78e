"""Views, against the published protocol written out by hand and against invariants."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.io.errors import DataError
from data_pipelines.sampling import (
    Sampling,
    frame_indices,
    random_clip,
    random_segments,
    resized_size,
    spatial_crops,
    uniform_clips,
    uniform_segments,
)

RATES = st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(12), Fraction(1, 2), Fraction(1000)])
LENGTHS = st.integers(1, 400)
FRAMES, STRIDES = st.integers(1, 40), st.integers(1, 8)


def test_twelve_views_of_a_kinetics_clip():
    """ViViT's 4 x 3 views at 32 x 2: 10 s at 25 fps are 250 frames, starts linspace(0, 186, 4)."""
    views = uniform_clips(250, Fraction(25), 32, 2, num_clips=4, num_crops=3)
    assert [(v.clip_index, v.aug_index) for v in views] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
        (3, 0),
        (3, 1),
        (3, 2),
    ]
    assert [v.clip_start_sec * 25 for v in views] == [0, 0, 0, 62, 62, 62, 124, 124, 124, 186, 186, 186]
    assert all(v.clip_end_sec - v.clip_start_sec == Fraction(64, 25) for v in views)
    assert [v.is_last_clip for v in views] == [False] * 11 + [True]
    indices = [frame_indices(v, 250, Fraction(25), 32).tolist() for v in views[::3]]
    assert indices == [list(range(s, s + 64, 2)) for s in (0, 62, 124, 186)]


def test_one_view_is_the_central_window():
    (view,) = uniform_clips(250, Fraction(30000, 1001), 32, 2, num_clips=1)
    assert frame_indices(view, 250, Fraction(30000, 1001), 32).tolist() == list(range(93, 157, 2))  # (250 - 64) // 2


@given(LENGTHS, RATES, FRAMES, STRIDES, st.integers(1, 12))
def test_uniform_clips_are_the_truncated_linspace(length, fps, frames, stride, clips):
    latest = max(0, length - frames * stride)
    exact = [Fraction(i * latest, clips - 1) for i in range(clips)] if clips > 1 else [Fraction(latest // 2)]
    views = uniform_clips(length, fps, frames, stride, clips)
    assert [v.clip_start_sec * fps for v in views] == [int(start) for start in exact]
    for view in views:
        indices = frame_indices(view, length, fps, frames)
        start = int(view.clip_start_sec * fps)
        assert indices.tolist() == [(start + i * stride) % length for i in range(frames)]


@given(LENGTHS, RATES, FRAMES, STRIDES, st.integers(0, 2**32))
def test_random_clips_lie_in_the_video_or_repeat_it(length, fps, frames, stride, seed):
    clip = random_clip(length, fps, frames, stride, np.random.default_rng(seed))
    indices = frame_indices(clip, length, fps, frames)
    assert indices.dtype == np.int64 and indices.shape == (frames,)
    if (frames - 1) * stride < length:
        assert (np.diff(indices) == stride).all()  # no wrap
    else:
        assert indices.tolist() == [(i * stride) % length for i in range(frames)]


def test_random_starts_are_uniform_and_reach_both_ends():
    rng = np.random.default_rng(0)
    starts = [int(random_clip(12, Fraction(25), 4, 3, rng).clip_start_sec * 25) for _ in range(3000)]
    counts = np.bincount(starts, minlength=3)
    assert len(counts) == 3  # 12 - 3 * 3 = 3 starts: the last one samples frames 2, 5, 8 and 11
    assert (abs(counts - 1000) < 100).all()  # within 4 standard deviations


def test_crops_by_hand():
    assert spatial_crops(256, 340, 224, 1) == [(16, 58)]
    assert spatial_crops(256, 340, 224, 3) == [(16, 0), (16, 58), (16, 116)]
    assert spatial_crops(340, 256, 224, 3) == [(0, 16), (58, 16), (116, 16)]
    assert spatial_crops(224, 224, 224, 3) == [(0, 0)] * 3
    with pytest.raises(DataError, match="224 does not fit into frames of 200 x 340"):
        spatial_crops(200, 340, 224, 1)
    with pytest.raises(DataError, match="num_crops: 5"):
        spatial_crops(256, 340, 224, 5)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 512))
def test_resized_size(height, width, short_side):
    new = resized_size(height, width, short_side)
    assert min(new) == short_side
    assert 0 <= Fraction(max(height, width) * short_side, min(height, width)) - max(new) < 1


def test_a_video_without_frames_is_an_error():
    (view,) = uniform_clips(1, Fraction(25), 4, 1, 1)
    with pytest.raises(DataError, match="num_frames: 0"):
        frame_indices(view, 0, Fraction(25), 4)
    with pytest.raises(DataError, match="num_clips"):
        uniform_clips(10, Fraction(25), 4, 1, 0)


@given(LENGTHS, RATES, FRAMES, STRIDES, st.sampled_from([Fraction(25), Fraction(30), Fraction(30000, 1001)]))
def test_a_target_rate_makes_clips_of_equal_duration(length, fps, frames, stride, target):
    """Each frame is the one on screen at its moment, start + i * stride / target seconds."""
    sampling = Sampling(frames, stride, target)
    (indices,) = sampling.test_clips(length, fps, 1)
    start = max(Fraction(0), length - frames * stride * fps / target) // 2
    moments = [start / fps + Fraction(i * stride) / target for i in range(frames)]
    assert indices.tolist() == [int(moment * fps) % length for moment in moments]
    drawn = sampling.training_clip(length, fps, np.random.default_rng(0))
    if (frames - 1) * stride * fps / target < length:
        assert (np.diff(drawn) >= 0).all() and drawn[0] >= 0 and drawn[-1] < length
    same_rate, plain = Sampling(frames, stride, fps), Sampling(frames, stride)
    assert (same_rate.test_clips(length, fps, 4) == plain.test_clips(length, fps, 4)).all()


def test_sixty_frames_a_second_seen_as_thirty():
    assert Sampling(4, 2, Fraction(30)).test_clips(16, Fraction(60), 1).tolist() == [[0, 4, 8, 12]]
    assert Sampling(4, 1, Fraction(30)).test_clips(2, Fraction(15), 1).tolist() == [[0, 0, 1, 1]]


@given(LENGTHS, FRAMES, st.integers(0, 2**32))
def test_random_segments_take_one_frame_of_each_part(length, frames, seed):
    indices = random_segments(length, frames, np.random.default_rng(seed))
    assert indices.shape == (frames,) and indices.dtype == np.int64
    for i, index in enumerate(indices.tolist()):
        assert Fraction(i * length, frames) - 1 < index < Fraction((i + 1) * length, frames)


@given(LENGTHS, FRAMES, st.integers(1, 10))
def test_uniform_segments_by_their_definition(length, frames, clips):
    indices = uniform_segments(length, frames, clips)
    places = [Fraction(2 * c + 1, 2 * clips) for c in range(clips)]
    wanted = [[int(Fraction(length, frames) * (i + place)) for i in range(frames)] for place in places]
    assert indices.tolist() == wanted
    if length >= 2 * frames * clips:
        assert len({tuple(row) for row in wanted}) == clips  # different clips are different


def test_segments_by_hand():
    sampling = Sampling(8, segments=True)
    assert sampling.test_clips(16, Fraction(25), 1).tolist() == [[1, 3, 5, 7, 9, 11, 13, 15]]
    assert sampling.test_clips(16, Fraction(25), 2).tolist() == [list(range(0, 16, 2)), list(range(1, 16, 2))]
    assert sampling.test_clips(1, Fraction(25), 2).tolist() == [[0] * 8] * 2
    starts = [sampling.training_clip(80, Fraction(25), np.random.default_rng(s))[0] for s in range(2000)]
    assert (abs(np.bincount(starts, minlength=10) - 200) < 60).all()
    with pytest.raises(DataError, match="num_frames: 0"):
        random_segments(0, 4, np.random.default_rng(0))
