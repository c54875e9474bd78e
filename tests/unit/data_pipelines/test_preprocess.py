"""Preprocessing of single videos, against the test dataset and against plain decoding."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import decode_all, encode

from data_pipelines import preprocess as preprocess_module
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import StringList, VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.preprocess import Preprocess, open_any
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.normalization import to_model_input
from data_pipelines.video import backends
from data_pipelines.video.reader import open_video

SETTINGS = {"frames": 4, "stride": 3, "short_side": 40, "crop": 32, "range": [-1, 1]}
CLIP_KINDS = ({}, {"target_fps": 10}, {"sampling": "segments"})


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("videos") / "a.mp4", frames=50))


def dataset_views(path, settings, num_clips=1, num_crops=1):
    manifest = VideoManifest(StringList([path]), np.zeros(1, np.int64), ("a",), "a list")
    return MultiViewDataset(manifest, Preprocess.from_dict(settings), num_clips, num_crops)[0]["video"]


# model.json


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        {**SETTINGS, "target_fps": 29.97},
        {**SETTINGS, "target_fps": 12.3456789},
        {**SETTINGS, "target_fps": 10},
        {**SETTINGS, "sampling": "segments", "resize": "area"},
    ],
    ids=str,
)
def test_settings_survive_a_round_trip_through_json(settings):
    preprocess = Preprocess.from_dict(settings)
    assert preprocess.to_dict() == settings
    assert list(preprocess.to_dict()) == list(settings)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_omitted_settings_have_their_defaults():
    preprocess = Preprocess.from_dict({"frames": 4, "stride": 3, "short_side": 40, "crop": 32})
    assert preprocess == Preprocess(Sampling(4, 3, target_fps=None, segments=False), 40, 32, "bilinear")
    assert preprocess.to_dict() == SETTINGS


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"fps": 3}, "'fps'"),
        ({"frames": 0}, "preprocessing.frames: found 0"),
        ({"stride": "2"}, "preprocessing.stride: found '2'"),
        ({"crop": True}, "preprocessing.crop: found True"),
        ({"crop": 41}, "preprocessing.crop: found 41, expected at most short_side = 40"),
        ({"range": [0, 1]}, r"preprocessing.range: found \[0, 1\]"),
        ({"range": 3}, "preprocessing.range: found 3"),
        ({"target_fps": "30"}, "preprocessing.target_fps: found '30'"),
        ({"sampling": "dense"}, "preprocessing.sampling: found 'dense'"),
        ({"resize": "cubic"}, "preprocessing.resize: found 'cubic'"),
    ],
)
def test_errors_name_the_key(change, key):
    with pytest.raises(DataError, match=key):
        Preprocess.from_dict({**SETTINGS, **change})


def test_a_missing_key_is_named():
    with pytest.raises(DataError, match=r"preprocessing\.stride: missing"):
        Preprocess.from_dict({key: value for key, value in SETTINGS.items() if key != "stride"})
    with pytest.raises(DataError, match="preprocessing: found None"):
        Preprocess.from_dict(None)


def test_another_resolution_keeps_the_field_of_view():
    preprocess = Preprocess(Sampling(4, 3), short_side=256, crop=224)
    assert preprocess.with_crop(112) == Preprocess(Sampling(4, 3), short_side=128, crop=112)
    assert preprocess.with_crop(448) == Preprocess(Sampling(4, 3), short_side=512, crop=448)


# One clip


@pytest.mark.parametrize("kind", CLIP_KINDS, ids=str)
def test_clips_equal_those_of_the_multi_view_test(video, kind):
    settings = {**SETTINGS, **kind}
    preprocess = Preprocess.from_dict(settings)
    (expected,) = dataset_views(video, settings)
    assert torch.equal(preprocess.clip(video), expected)
    assert torch.equal(preprocess(video), to_model_input(expected))
    assert preprocess(video).shape == (3, 4, 32, 32)
    assert torch.equal(preprocess.views(video, 2, 3), dataset_views(video, settings, 2, 3))


def test_pixels_of_the_central_clip_by_hand(video):
    """At half the size, a pixel is the mean of four; the crop removes 8 columns on each side."""
    preprocess = Preprocess.from_dict({**SETTINGS, "short_side": 32})
    frames = decode_all(video)[[19, 22, 25, 28]]  # the start is (50 - 4 * 3) // 2 = 19
    expected = frames.reshape(4, 32, 2, 48, 2, 3).mean(axis=(2, 4))[:, :, 8:40]
    clip = preprocess.clip(video).permute(1, 2, 3, 0).numpy()
    assert abs(clip - expected).max() <= 1


def test_start_and_frame_times_in_seconds(video):
    preprocess, frames = Preprocess.from_dict(SETTINGS), decode_all(video)
    assert torch.equal(preprocess.clip(video, start=0.8), preprocess.clip(frames[20:32]))  # 0.8 s * 25 fps
    for start, indices in ((None, [19, 22, 25, 28]), (1.8, [45, 48, 1, 4])):  # the second continues at the first frame
        clip, seconds = preprocess.timed_clip(video, start)
        assert torch.equal(clip, preprocess.clip(video, start))
        np.testing.assert_allclose(seconds, np.array(indices) / 25)


def test_times_are_read_as_decimals():
    """The float that is nearest to 0.12 is slightly below it, yet it means frame 3 at 25 fps."""
    frames = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    preprocess = Preprocess(Sampling(1), short_side=8, crop=8)
    assert any(Fraction(frame / 25) < Fraction(frame, 25) for frame in range(50))
    assert [preprocess.clip(frames, frame / 25)[0, 0, 0, 0].item() for frame in range(50)] == list(range(50))


def test_paths_arrays_tensors_and_readers_give_the_same_clip(video):
    preprocess, frames = Preprocess.from_dict(SETTINGS), decode_all(video)
    expected = preprocess.clip(video)
    assert torch.equal(preprocess.clip(frames), expected)
    assert torch.equal(preprocess.clip(torch.from_numpy(frames)), expected)
    with open_any(video) as reader:
        assert torch.equal(preprocess.clip(reader), expected)
        assert torch.equal(preprocess.clip(reader), expected), "the reader stays open"


# Images


def test_an_image_is_a_video_of_one_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preprocess = Preprocess.from_dict({**SETTINGS, "frames": 1, "stride": 1})
    expected = preprocess(tmp_path / "a.png")
    assert expected.shape == (3, 1, 32, 32)
    for same in (pixels, Image.fromarray(pixels), tmp_path):
        assert torch.equal(preprocess(same), expected)
    grey = Image.fromarray(pixels).convert("L")
    assert torch.equal(preprocess(grey), preprocess(grey.convert("RGB")))


def test_resizing_by_area_averages_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    preprocess = Preprocess(Sampling(1), short_side=25, crop=25, resize="area")
    expected = pixels[:, 10:60].reshape(25, 2, 25, 2, 3).mean((1, 3)).transpose(2, 0, 1)  # half the size, central crop
    assert np.abs(preprocess.clip(pixels)[:, 0].numpy() - expected).max() <= 0.5


def test_a_video_model_sees_an_image_as_a_still_video():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    clip = Preprocess.from_dict(SETTINGS).clip(pixels)
    assert torch.equal(clip, clip[:, :1].expand(-1, 4, -1, -1))


# Clips of a whole video


@pytest.mark.parametrize("kind", CLIP_KINDS[:2], ids=str)
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".avi", "mpeg4")])
def test_consecutive_clips_equal_single_clips_at_their_starts(tmp_path, kind, suffix, codec):
    path = encode(tmp_path / f"a{suffix}", codec, frames=61, rate=30)
    preprocess = Preprocess.from_dict({**SETTINGS, **kind})
    for spacing in (None, 0.2):
        clips = list(preprocess.clips(path, spacing))
        assert clips[0].start == 0 and clips[-1].end == pytest.approx(61 / 30, abs=1 / 30)
        assert [clip.start for clip in clips] == sorted({clip.start for clip in clips})
        for clip in clips:
            assert torch.equal(clip.video, preprocess.clip(path, clip.start))


def test_consecutive_clips_read_each_frame_once_and_in_order():
    frames = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((40, 40, 3), np.uint8)
    preprocess, requests = Preprocess.from_dict(SETTINGS), []
    with open_any(frames) as reader:
        read = reader.read
        reader.read = lambda indices: requests.append(list(indices)) or read(indices)
        clips = [clip.video[0, :, 0, 0].tolist() for clip in preprocess.clips(reader, seconds_between=3 / 25)]
    assert clips == [list(range(start, start + 12, 3)) for start in (*range(0, 188, 3), 188)]
    assert max(map(len, requests)) == 4
    indices = [index for request in requests for index in request]
    assert indices == sorted(set(indices))


def test_a_long_video_is_decoded_in_one_pass(tmp_path, monkeypatch):
    """In this file decoding starts at the first frame, so that seeking back would cost another pass."""
    path, passes = encode(tmp_path / "a.avi", "mpeg4", frames=90), []
    expected = [clip.video for clip in Preprocess.from_dict(SETTINGS).clips(path, 0.1)]
    open_stream = backends.open_stream
    monkeypatch.setattr(backends, "CACHE_BYTES", 0)
    monkeypatch.setattr(preprocess_module, "FRAMES_PER_READ", 3)
    monkeypatch.setattr(
        backends, "open_stream", lambda path, *limits: passes.append(path) or open_stream(path, *limits)
    )
    with open_video(path, "pyav", timeout=0) as reader:
        clips = [clip.video for clip in Preprocess.from_dict(SETTINGS).clips(reader, 0.1)]
        assert len(passes) == 2  # the first one counts frames
        assert torch.equal(torch.stack(clips), torch.stack(expected)) and len(clips) > 30
        assert (reader.read([5, 3]) == decode_all(path)[[5, 3]]).all() and len(passes) == 3


# Errors


@pytest.mark.parametrize("start", [-0.1, 2.0, float("nan")])
def test_a_start_outside_the_video(video, start):
    with pytest.raises(DataError, match=f"start: found {start} s, .* less than 2 s"):
        Preprocess.from_dict(SETTINGS)(video, start)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((2, 8, 8, 3)), r"float64 \(2, 8, 8, 3\)"),
        (np.zeros((3, 2, 8, 8), np.uint8), r"uint8 \(3, 2, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"uint8 \(8, 8\)"),
        (7, "int"),
    ],
    ids=["floats", "channels first", "grey", "a number"],
)
def test_what_is_not_a_video(wrong, found):
    with pytest.raises(DataError, match=f"video: found .*{found}"):
        Preprocess.from_dict(SETTINGS)(wrong)


def test_impossible_requests(video, tmp_path):
    preprocess = Preprocess.from_dict(SETTINGS)
    with pytest.raises(MissingDataError, match=r"nowhere\.mp4"):
        preprocess(tmp_path / "nowhere.mp4")
    with pytest.raises(DataError, match="seconds_between: found -1"):
        list(preprocess.clips(video, -1))
    with pytest.raises(DataError, match="nan"):
        list(preprocess.clips(video, float("nan")))
    with open_video(video) as reader, pytest.raises(DataError, match="num_crops: found 2"):
        preprocess.views(reader, 1, 2)
