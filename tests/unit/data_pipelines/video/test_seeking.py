"""Seeking with PyAV, against decoding from the start and decord, for every kind of frame; what is not decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.videos import decode_all, encode

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.backends import DecordReader, PyAVReader
from data_pipelines.video.reader import open_video
from data_pipelines.video.seeking import SeekingReader

B_FRAMES = {"x264-params": "keyint=20:bframes=3:b-adapt=0:scenecut=0"}
INTERLACED = {"x264-params": "keyint=12:bframes=3:interlaced=1"}
SAME_PIXELS: dict[str, dict[str, Any]] = {  # as decord
    "plain.mp4": {},
    "matroska.mkv": {},
    "not a multiple of 16.mp4": {"width": 102, "height": 70},
    "odd 4:4:4.mp4": {"pixels": "yuv444p", "width": 77, "height": 53},
    "4:2:2.mp4": {"pixels": "yuv422p"},
    "full range.mp4": {"pixels": "yuvj420p"},
    "grey.mp4": {"pixels": "gray"},
    "odd width.mkv": {"codec": "libvpx-vp9", "options": {"g": "20"}, "width": 77, "height": 54},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "20"}},
}
PYAV_ALONE: dict[str, dict[str, Any]] = {
    "10 bits.mp4": {"pixels": "yuv420p10le"},
    "10 bits 4:2:2.mkv": {"pixels": "yuv422p10le", "width": 98, "height": 66},
}
OTHER_PIXELS: dict[str, dict[str, Any]] = {  # than decord's
    "odd height.mp4": {"codec": "mpeg4", "options": {"g": "20"}, "width": 78, "height": 53},
    "interlaced.mp4": {"options": INTERLACED},
    "rgb.mp4": {"codec": "libx264rgb", "pixels": "rgb24"},
}


def encode_case(folder: Path, name: str, case: dict[str, Any]) -> str:
    return str(encode(folder / name.replace(":", ""), **{"options": B_FRAMES, **case}))


def random_clips(num_frames: int) -> list[np.ndarray]:
    """Clips with strides, and frames in any distance."""
    rng = np.random.default_rng(0)
    scattered = [np.unique(rng.integers(num_frames, size=6)) for _ in range(8)]
    return [*scattered, *(np.arange(start, num_frames, stride) for start in (0, 1, 17, 40) for stride in (1, 2, 5))]


@pytest.mark.parametrize("name", [*SAME_PIXELS, *PYAV_ALONE])
def test_frames_are_those_of_the_other_backends(tmp_path, name):
    path = encode_case(tmp_path, name, {**SAME_PIXELS, **PYAV_ALONE}[name])
    others = [DecordReader(path), PyAVReader(path)] if name in SAME_PIXELS else [PyAVReader(path)]
    reader = SeekingReader(path)
    assert all((reader.num_frames, reader.fps) == (other.num_frames, other.fps) for other in others)
    for indices in random_clips(reader.num_frames):
        frames = reader.read(indices)
        for other in others:
            np.testing.assert_array_equal(frames, other.read(indices), err_msg=f"{type(other)} {indices}")
    with open_video(path) as video:
        assert video._backend == "seek"


@pytest.mark.parametrize("name", OTHER_PIXELS)
def test_frames_that_decord_converts_in_another_way_are_left_to_it(tmp_path, name):
    path = encode_case(tmp_path, name, OTHER_PIXELS[name])
    with pytest.raises(VideoDecodeError, match="which decord reads"):
        SeekingReader(path)
    with open_video(path) as video:
        np.testing.assert_array_equal(video.read([5, 33]), DecordReader(path).read(np.array([5, 33])))


def test_only_frames_that_others_need_are_decoded(tmp_path, monkeypatch):
    """Of the B-frames before a clip and between its frames, none is decoded unless others are predicted from it."""
    path = encode(tmp_path / "clip.mp4", options={"x264-params": B_FRAMES["x264-params"] + ":b-pyramid=none"})
    with av.open(str(path)) as container:
        kinds = "".join("?IPB"[frame.pict_type] for frame in container.decode(video=0))
    indices = np.array([25, 27, 29, 31])
    last_reference = 31 + kinds[31:].find("P")  # the B-frames before it need it
    expected = {i for i in range(20, last_reference + 1) if kinds[i] != "B"} | set(indices.tolist())
    assert kinds[20] == "I" and kinds.count("B") > 30 and last_reference < 36
    reader = SeekingReader(str(path))
    decoded = []
    is_needed = reader._is_needed
    monkeypatch.setattr(reader, "_is_needed", lambda packet: is_needed(packet) and (decoded.append(packet.pts) or True))
    np.testing.assert_array_equal(reader.read(indices), decode_all(path)[indices])
    assert {reader._times.index(time) for time in decoded if time is not None and time <= reader._times[31]} <= expected
    assert len(decoded) < len(expected) + 4


@pytest.mark.parametrize("damage", ["index", "packet"])
def test_other_frames_than_the_index_lists_are_an_error(tmp_path, monkeypatch, damage):
    path = str(encode(tmp_path / "clip.mp4", options=B_FRAMES))
    reader = SeekingReader(path)
    if damage == "index":
        reader._times[7] += 1
    else:  # the frame is not decoded although it is needed
        monkeypatch.setattr(reader, "_is_needed", lambda packet: packet.pts != reader._times[7])
    with pytest.raises(VideoDecodeError, match="seek: found another frame"):
        reader.read(np.array([7]))
