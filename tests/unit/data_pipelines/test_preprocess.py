"""Preprocessing of a user's own videos, against the evaluation's data set and plain decoding."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.videos import decode_all, encode

from data_pipelines import preprocess
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import PathList, VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.preprocess import Preprocess, open_any
from data_pipelines.sampling import Sampling
from data_pipelines.video import backends
from data_pipelines.video.reader import open_video

TOLD = {"frames": 4, "stride": 3, "short_side": 40, "crop": 32, "range": [-1, 1]}
KINDS = ({}, {"target_fps": 10}, {"sampling": "segments"})


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("videos") / "a.mp4", frames=50))


def views_of_evaluation(path, told, clips=1, crops=1):
    one = VideoManifest(PathList([path]), np.zeros(1, np.int64), ("a",), "a list")
    dataset = MultiViewDataset(one, Preprocess.from_dict(told), clips, crops)
    return dataset[0]["video"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_clip_is_what_evaluation_feeds(video, kind):
    preprocess = Preprocess.from_dict({**TOLD, **kind})
    (uint8,) = views_of_evaluation(video, {**TOLD, **kind})
    assert torch.equal(preprocess.clip(video), uint8)
    fed = preprocess(video)
    assert fed.dtype == torch.float32 and fed.shape == (3, 4, 32, 32)
    assert torch.equal(fed, uint8.float() / 127.5 - 1)
    assert torch.equal(preprocess.views(video, 2, 3), views_of_evaluation(video, {**TOLD, **kind}, 2, 3))


def test_pixels_and_frames_by_hand(video):
    """Frames 19, 22, 25 and 28 of 50; at half the size, a pixel is the mean of four."""
    preprocess = Preprocess.from_dict({**TOLD, "short_side": 32})
    frames = decode_all(video)[[19, 22, 25, 28]]  # (50 - 4 * 3) // 2 = 19
    expected = frames.reshape(4, 32, 2, 48, 2, 3).mean(axis=(2, 4))[:, :, 8:40]
    got = preprocess.clip(video).permute(1, 2, 3, 0).numpy()
    assert abs(got - expected).max() <= 1
    later = preprocess.clip(video, start=0.8)  # frame 20 at 25 a second
    assert torch.equal(later, preprocess.clip(decode_all(video)[20:32]))
    for start, indices in ((None, [19, 22, 25, 28]), (1.8, [45, 48, 1, 4])):  # what is missing at the end wraps round
        clip, seconds = preprocess.timed_clip(video, start)
        assert torch.equal(clip, preprocess.clip(video, start))
        np.testing.assert_allclose(seconds, np.array(indices) / 25)


def test_a_file_its_frames_and_its_reader_are_one_video(video):
    preprocess, frames = Preprocess.from_dict(TOLD), decode_all(video)
    expected = preprocess.clip(video)
    for same in (frames, torch.from_numpy(frames)):
        assert torch.equal(preprocess.clip(same), expected)
    with open_any(video) as reader:
        assert torch.equal(preprocess.clip(reader), expected) and torch.equal(preprocess.clip(reader), expected)


def test_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preprocess = Preprocess.from_dict({**TOLD, "frames": 1, "stride": 1})
    expected = preprocess(tmp_path / "a.png")
    assert expected.shape == (3, 1, 32, 32)
    for same in (pixels, Image.fromarray(pixels), tmp_path):
        assert torch.equal(preprocess(same), expected)
    by_area = Preprocess.from_dict({**TOLD, "frames": 1, "stride": 1, "resize": "area", "short_side": 25, "crop": 25})
    mean = pixels[:, 10:60].reshape(25, 2, 25, 2, 3).mean((1, 3)).transpose(2, 0, 1)  # 50 to 25, central crop
    assert np.abs(by_area.clip(pixels)[:, 0].numpy() - mean).max() <= 0.5
    still = Preprocess.from_dict(TOLD).clip(pixels)  # a video model sees a video that stands still
    assert torch.equal(still, still[:, :1].expand(-1, 4, -1, -1))
    grey = Image.fromarray(pixels).convert("L")
    assert torch.equal(preprocess(grey), preprocess(grey.convert("RGB")))


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_sliding_clips_are_the_clips_at_their_starts(tmp_path, kind, suffix):
    path = encode(tmp_path / f"a{suffix}", "libx264" if suffix == ".mp4" else "mpeg4", frames=61, rate=30)
    preprocess = Preprocess.from_dict({**TOLD, **kind})
    for spacing in ({}, {"seconds_between": 0.2}, {"num_clips": 5}):
        clips = list(preprocess.clips(path, **spacing))
        assert clips[0].start == 0 and clips[-1].end == pytest.approx(61 / 30, abs=1 / 30)
        assert [c.start for c in clips] == sorted({c.start for c in clips})
        for clip in clips:
            assert torch.equal(clip.video, preprocess.clip(path, clip.start))
    assert len(list(preprocess.clips(path, num_clips=5))) == 5


LENGTHS, RATES = st.integers(1, 300), st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1, 2)])


@given(LENGTHS, RATES, st.integers(1, 9), st.integers(1, 9), st.booleans(), st.sampled_from([None, 0.01, 0.3, 4]))
def test_sliding_clips_leave_nothing_out(length, fps, frames, stride, segments, seconds):
    sampling = Sampling(frames, stride, None, segments)
    between = None if seconds is None else Fraction(seconds)
    clips = sampling.sliding_clips(length, fps, between)
    assert clips[0][0] == 0 and clips[-1][1] == length / fps
    lasts = frames * stride / fps
    for (start, end, indices), (following, *_) in zip(clips, [*clips[1:], (length / fps,)], strict=True):
        assert indices.shape == (frames,) and indices.min() >= 0 and indices.max() < length
        assert 0 <= start < end <= length / fps
        assert following > start or following == end
        if segments or seconds is None or seconds <= lasts:
            assert following <= end  # no gap
        if segments or end - start == lasts:
            assert start * fps <= indices.min() and indices.max() < end * fps


def test_a_long_video_is_never_held(tmp_path):
    """Of 200 frames at a time only a clip's are asked for, each once and in order."""
    frames, asked = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3, -1).repeat(40, 1).repeat(40, 2), []
    preprocess = Preprocess.from_dict(TOLD)
    with open_any(frames) as reader:
        read = reader.read
        reader.read = lambda indices: asked.append(list(indices)) or read(indices)
        clips = [clip.video[0, :, 0, 0].tolist() for clip in preprocess.clips(reader, seconds_between=3 / 25)]
    assert clips == [list(range(start, start + 12, 3)) for start in (*range(0, 188, 3), 188)]
    assert max(map(len, asked)) == 4
    flat = [index for indices in asked for index in indices]
    assert flat == sorted(set(flat))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 3}, "preprocessing: found the key 'fps', known are frames"),
        ({"frames": 0}, "preprocessing.frames: found 0, must be a whole number"),
        ({"crop": True}, "preprocessing.crop: found True"),
        ({"crop": 41}, "preprocessing.crop: found 41, must be at most short_side, 40"),
        ({"range": [0, 1]}, r"preprocessing.range: found \[0, 1\], must be \[-1, 1\]"),
        ({"target_fps": "30"}, "preprocessing.target_fps: found '30', must be a positive number"),
        ({"sampling": "dense"}, "preprocessing.sampling: found 'dense', must be clip or segments"),
        ({"resize": "cubic"}, "preprocessing.resize: found 'cubic', must be bilinear or area"),
    ],
)
def test_what_cannot_be_is_named(change, words):
    with pytest.raises(DataError, match=words):
        Preprocess.from_dict({**TOLD, **change})
    with pytest.raises(DataError, match=r"preprocessing\.stride: found none"):
        Preprocess.from_dict({key: value for key, value in TOLD.items() if key != "stride"})


def test_a_users_mistakes_are_named(video, tmp_path):
    preprocess = Preprocess.from_dict(TOLD)
    for start in (-0.1, 2.0, float("nan")):
        with pytest.raises(DataError, match=f"start: found {start} s, must lie in the video, from 0 to below 2 s"):
            preprocess(video, start)
    with pytest.raises(MissingDataError, match="nowhere"):
        preprocess(tmp_path / "nowhere.mp4")
    for wrong in (np.zeros((2, 8, 8, 3)), np.zeros((3, 2, 8, 8), np.uint8), torch.zeros(8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"video: found an array of .* must be uint8 \(T, H, W, 3\)"):
            preprocess(wrong)
    with pytest.raises(DataError, match="video: found int"):
        preprocess(7)
    with pytest.raises(DataError, match="seconds_between: found -1, must be positive"):
        list(preprocess.clips(video, -1))
    with open_video(video) as reader, pytest.raises(DataError, match="num_crops: 2 found"):
        preprocess.views(reader, 1, 2)


def test_a_long_film_is_decoded_in_one_pass(tmp_path, monkeypatch):
    """Where decoding starts at the first frame, every clip of a film would otherwise cost all before it."""
    path, passes = encode(tmp_path / "a.avi", "mpeg4", frames=90), []
    expected = [clip.video for clip in Preprocess.from_dict(TOLD).clips(path, 0.1)]
    open_stream = backends.open_stream
    monkeypatch.setattr(backends, "KEPT_BYTES", 0)
    monkeypatch.setattr(preprocess, "AT_A_TIME", 3)
    monkeypatch.setattr(backends, "open_stream", lambda path: passes.append(path) or open_stream(path))
    with open_video(path, "pyav", seconds=0) as reader:
        clips = [clip.video for clip in Preprocess.from_dict(TOLD).clips(reader, 0.1)]
        assert len(passes) == 2  # one counts
        assert torch.equal(torch.stack(clips), torch.stack(expected)) and len(clips) > 30
        assert (reader.read([5, 3]) == decode_all(path)[[5, 3]]).all() and len(passes) == 3
