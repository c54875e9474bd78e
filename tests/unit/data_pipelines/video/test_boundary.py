"""Whatever happens in a decoder, callers get one kind of error, and one file is lost."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import encode

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.preparation.copies import CopySettings, copy_video
from data_pipelines.preparation.scanning import scan
from data_pipelines.video import backends, decoding_process
from data_pipelines.video.reader import open_video, read_frames
from data_pipelines.video.streams import open_stream

CLOSED_GOP = {"x264-params": "keyint=12"}


class LibraryError(Exception):
    """As decord's own error, which derives from no other one."""


ERRORS = [IndexError("index"), MemoryError(), KeyError("codec"), LibraryError("a\nb"), RecursionError(), OSError(5)]


class FailingReader:
    """A backend whose methods raise."""

    num_frames, fps = 60, Fraction(25)
    error: BaseException
    fails_in: str

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        self._fail("open")

    def read(self, indices: np.ndarray) -> np.ndarray:
        self._fail("read")
        return np.zeros((len(indices), 4, 4, 3), np.uint8)

    def close(self) -> None:
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.fails_in == where:
            raise self.error


def encode_with_unknown_codec(path: Path) -> Path:
    encode(path, options=CLOSED_GOP)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"XYZW"))
    return path


@pytest.mark.parametrize("fails_in", ["open", "read"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_exception_of_a_backend_is_a_decode_error(tmp_path, monkeypatch, error, fails_in):
    path = encode(tmp_path / "clip.mp4", options=CLOSED_GOP)
    monkeypatch.setattr(FailingReader, "error", error, raising=False)
    monkeypatch.setattr(FailingReader, "fails_in", fails_in, raising=False)
    monkeypatch.setitem(backends.READERS, "decord", FailingReader)
    with pytest.raises(VideoDecodeError, match=r"clip\.mp4: cannot be decoded; decord: ") as caught:
        read_frames(path, [3], "decord", timeout=0)
    assert len(str(caught.value).splitlines()) == 1
    assert read_frames(path, [3], "auto", timeout=0).shape == (1, 64, 96, 3)  # PyAV


def test_every_exception_in_the_decoding_process_is_a_decode_error(tmp_path, monkeypatch):
    (tmp_path / "decord.py").write_text("raise LookupError('no such library')")
    path = encode(tmp_path / "clip.mp4", options=CLOSED_GOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    decoding_process.decoding_process().kill()
    try:
        with pytest.raises(VideoDecodeError, match="decord: no such library"):
            read_frames(path, [3], "decord")
    finally:
        decoding_process.decoding_process().kill()


def test_errors_while_closing_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(FailingReader, "error", LibraryError("close"), raising=False)
    monkeypatch.setattr(FailingReader, "fails_in", "close", raising=False)
    monkeypatch.setitem(backends.READERS, "decord", FailingReader)
    path = encode(tmp_path / "clip.mp4", options=CLOSED_GOP)
    assert read_frames(path, [3], "decord", timeout=0).shape == (1, 4, 4, 3)


@pytest.mark.parametrize("index", [0, 59])
def test_the_number_of_frames_is_compared_after_a_fallback(tmp_path, monkeypatch, index):
    """The indices are drawn for the 60 frames of the first backend, of which the others find 48."""
    path = encode(tmp_path / "clip.mp4", options=CLOSED_GOP, frames=48)
    monkeypatch.setattr(FailingReader, "error", LibraryError("corrupt packet"), raising=False)
    monkeypatch.setattr(FailingReader, "fails_in", "read", raising=False)
    monkeypatch.setitem(backends.READERS, "seek", FailingReader)
    with pytest.raises(VideoDecodeError, match=r"seek: corrupt packet; .*pyav: found 48 frames, expected the 60"):
        read_frames(path, [index], timeout=0)


@pytest.mark.parametrize("timeout", [0, 60])
@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_unknown_codec(tmp_path, backend, timeout):
    path = encode_with_unknown_codec(tmp_path / "unknown.mp4")
    with pytest.raises(VideoDecodeError, match=r"unknown\.mp4: cannot be decoded"):
        read_frames(path, [0], backend, timeout)


def test_zeros_inside_a_video_cost_at_most_that_video(tmp_path):
    intact = encode(tmp_path / "intact.mp4", options=CLOSED_GOP, faststart=True).read_bytes()
    path = tmp_path / "zeros.mp4"
    for start in range(intact.find(b"mdat"), len(intact) - 200, len(intact) // 20):
        path.write_bytes(intact[:start] + bytes(200) + intact[start + 200 :])
        try:
            with open_video(path) as video:
                assert video.read([0, video.num_frames - 1]).shape == (2, 64, 96, 3)
        except VideoDecodeError as error:
            assert str(error).startswith(f"{path}: cannot be decoded; ")


def test_a_scan_goes_on_after_files_of_every_kind(tmp_path):
    good = encode(tmp_path / "good.mp4", options=CLOSED_GOP, frames=5)
    os.mkfifo(tmp_path / "pipe.mp4")
    bad = [encode_with_unknown_codec(tmp_path / "unknown.mp4"), tmp_path / "pipe.mp4"]
    paths = [good, *bad]
    manifest = VideoManifest(tuple(map(str, paths)), np.zeros(len(paths), int), ("0",), "test")
    copies = CopySettings(tmp_path / "copies", tmp_path)
    records = scan(manifest, tmp_path / "videos.csv", workers=1, timeout=60, copies=copies)
    assert [record.status for record in records] == ["ok", "failed", "failed"]


def test_a_disk_error_while_copying_is_not_the_fault_of_the_video(tmp_path):
    """Otherwise a full disk would put every further video on the skip list."""
    source = encode(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "file").touch()
    call = {"source": str(source), "target": str(tmp_path / "file" / "copy.mp4")}
    settings = {"short_side": 64, "keyframe_every": 4, "crf": 20}
    with pytest.raises(OSError, match="file") as caught:
        decoding_process.decoding_process().call(60, copy_video, **call, **settings)
    assert not isinstance(caught.value, VideoDecodeError)


def test_the_memory_of_large_frames_is_released(tmp_path):
    """16 frames of 1.6 million pixels are more than is kept from one read to the next."""
    path = encode(tmp_path / "large.mp4", options={"preset": "ultrafast"}, width=1600, height=1000, frames=16)
    small = encode(tmp_path / "small.mp4", frames=5)
    process = decoding_process.decoding_process()
    shared = process._memory
    if shared is None:
        pytest.skip("this system passes frames through a pipe")
    for _ in range(2):
        frames = read_frames(path, range(16))
        assert frames.nbytes > decoding_process.KEPT_BYTES >= os.fstat(shared.descriptor).st_size
        assert read_frames(small, range(5)).shape == (5, 64, 96, 3)
    with open_stream(str(path)) as opened:
        expected = [frame.to_ndarray(format="rgb24").mean() for frame in opened.frames()]
    np.testing.assert_allclose(frames.mean((1, 2, 3)), expected, atol=1)
    assert decoding_process.decoding_process() is process
