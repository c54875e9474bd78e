"""Which files are opened, and what their streams say about the frames: orientation, pixel aspect, several streams."""

from __future__ import annotations

import http.server
import math
import os
import shutil
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from support.videos import decode_all, encode

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.preparation.copies import copy_video
from data_pipelines.preparation.scanning import inspect_video
from data_pipelines.video.reader import open_video, read_frames
from data_pipelines.video.streams import MAX_PIXELS, inspect_stream, open_stream

ORIENTATIONS = {  # (a, b, c, d) of the display matrix, and what it does to an image
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "90 clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "90 counter-clockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "left to right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "top to bottom": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "anti-transposed": ((0, -1, -1, 0), lambda image: image[::-1, ::-1].swapaxes(0, 1)),
}


def set_display_matrix(source: Path, target: Path, matrix: tuple[float, ...]) -> Path:
    """Copy an mp4 and write ``matrix`` (a, b, c, d) into the header of its track."""
    content = bytearray(source.read_bytes())
    start = content.find(b"tkhd") + 44
    a, b, c, d = (round(65536 * value) for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


def stored_frame(path: Path, index: int) -> np.ndarray:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))[index].to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", options={"x264-params": "keyint=12"}, frames=20)


# ----------------------------------------------------------------------------------------------------------------------
# Orientation and pixel aspect


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations(tmp_path, name, pixels):
    matrix, show = ORIENTATIONS[name]
    plain = encode(tmp_path / "plain.mp4", frames=5, pixels=pixels)
    path = set_display_matrix(plain, tmp_path / "turned.mp4", matrix)
    expected = show(stored_frame(plain, 3))
    for backend in ("auto", "pyav"):
        np.testing.assert_array_equal(read_frames(path, [3], backend)[0], expected, err_msg=backend)
    found = inspect_video(str(path))
    assert (found["height"], found["width"]) == expected.shape[:2]
    copy_video(str(path), str(tmp_path / "copy.mp4"), short_side=64, keyframe_every=4, crf=5)
    difference = np.abs(read_frames(tmp_path / "copy.mp4", [3])[0].astype(int) - expected)
    assert difference.mean() < 15  # more than 40 with another orientation


def test_other_display_matrices_are_reported_and_ignored(tmp_path, clip):
    sine, cosine = math.sin(math.radians(10)), math.cos(math.radians(10))
    path = set_display_matrix(clip, tmp_path / "tilted.mp4", (cosine, sine, -sine, cosine))
    for backend in ("auto", "pyav"):
        with pytest.warns(UserWarning, match=r"tilted\.mp4: found a display matrix .* 10 degrees"):
            np.testing.assert_array_equal(read_frames(path, [3], backend)[0], stored_frame(clip, 3), err_msg=backend)


def test_decord_refuses_mirrored_videos(tmp_path, clip):
    pytest.importorskip("decord")
    path = set_display_matrix(clip, tmp_path / "mirrored.mp4", (-1, 0, 0, 1))
    with pytest.raises(VideoDecodeError, match="decord: found a mirrored display matrix"):
        read_frames(path, [0], "decord")


def test_pixels_are_read_as_stored_whatever_their_aspect(tmp_path):
    """A video of 96 x 64 pixels that is shown 192 pixels wide is read 96 pixels wide by every backend."""
    path = tmp_path / "wide_pixels.mp4"
    options = {"x264-params": "sar=2/1:keyint=12"}
    encode(path, options=options, frames=10)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    for backend in ("auto", "decord", "pyav"):
        with open_video(path, backend) as video:
            assert video.read([4]).shape == (1, 64, 96, 3), backend
    found = inspect_video(str(path))
    assert (found["height"], found["width"]) == (64, 96)


# ----------------------------------------------------------------------------------------------------------------------
# Several streams


def join_streams(target: Path, sources: list[Path], default: int) -> Path:
    """Write a Matroska file with the video stream of each source; ``default`` is the index of the default stream."""
    inputs = [av.open(str(source)) for source in sources]
    with av.open(str(target), "w") as container:
        outputs = [container.add_stream_from_template(source.streams.video[0]) for source in inputs]
        for index, stream in enumerate(outputs):
            stream.disposition = Disposition.default.value if index == default else 0
        packets = [(p, i) for i, source in enumerate(inputs) for p in source.demux(video=0) if p.dts is not None]
        for packet, index in sorted(packets, key=lambda pair: float(pair[0].dts * pair[0].time_base)):
            packet.stream = outputs[index]
            container.mux(packet)
    return target


@pytest.mark.parametrize("default", [0, 1])
def test_every_backend_reads_the_same_of_several_streams(tmp_path, clip, default):
    other = encode(tmp_path / "other.mp4", options={"x264-params": "keyint=12"}, frames=30, width=160, height=120)
    path = join_streams(tmp_path / "two.mkv", [other, clip], default)
    reference = decode_all(path)
    assert reference.shape[1:3] == ((120, 160) if default == 0 else (64, 96))
    for backend in ("auto", "pyav", "decord"):
        try:
            with open_video(path, backend) as video:
                assert video.num_frames == len(reference)
                np.testing.assert_array_equal(video.read([7]), reference[[7]], err_msg=backend)
        except VideoDecodeError as error:
            assert backend == "decord" and "found 2 video streams" in str(error)


# ----------------------------------------------------------------------------------------------------------------------
# Untrusted files and names


@pytest.fixture(scope="module")
def server():
    """A server on this machine; ``requests`` are the paths that were asked for."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.requests = requests
        yield server
        server.shutdown()


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile clip.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "network": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/clip.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_not_followed(tmp_path, clip, server, kind, backend):
    """A text with the name of a video must read no other file and ask no server."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    path = tmp_path / "playlist.mp4"
    path.write_text(PLAYLISTS[kind].format(port=server.server_address[1]))
    with pytest.raises(VideoDecodeError, match=r"playlist\.mp4: cannot be decoded"):
        read_frames(path, [0], backend)
    with pytest.raises(VideoDecodeError):
        inspect_video(str(path))
    assert not server.requests


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_file_names_are_no_addresses(tmp_path, clip, server, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    port = server.server_address[1]
    for name in ("12:30.mp4", f"http:127.0.0.1:{port}?.mp4", "concat:clip.mp4", "a%20b %d#1?.mp4", "-i.mp4"):
        shutil.copy(clip, name)
        np.testing.assert_array_equal(read_frames(name, [3], backend), decode_all(clip)[[3]], err_msg=name)
        assert inspect_video(name)["frames"] == 20
        copy_video(name, f"copy:{name}", short_side=64, keyframe_every=4, crf=20)
        assert Path(f"copy:{name}").is_file()
    assert not server.requests


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodeError, match="regular file"):
        inspect_video(str(tmp_path / "pipe.mp4"))


# ----------------------------------------------------------------------------------------------------------------------
# Large frames


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_larger_frames_than_allowed_are_refused(clip, backend):
    with pytest.raises(VideoDecodeError, match="found frames of 96 x 64 pixels, expected at most 6143 in total"):
        read_frames(clip, [0], backend, max_pixels=96 * 64 - 1)
    assert read_frames(clip, [0], backend, max_pixels=96 * 64).shape == (1, 64, 96, 3)


def test_the_default_limit_refuses_a_small_file_with_huge_frames(tmp_path):
    path = tmp_path / "huge.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 8192, 4096, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(8192, 4096, "yuv420p")))
        container.mux(stream.encode())
    assert path.stat().st_size < 200_000
    with pytest.raises(VideoDecodeError, match=f"8192 x 4096 pixels, expected at most {MAX_PIXELS}"):
        read_frames(path, [0])
    with pytest.raises(VideoDecodeError, match="8192 x 4096"):
        inspect_video(str(path))


def test_frames_that_grow_during_a_video_are_refused(tmp_path):
    """MPEG-TS may change its size at any packet."""
    small, large = (encode(tmp_path / f"{w}.ts", frames=5, width=w, height=48) for w in (64, 640))
    path = tmp_path / "growing.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoDecodeError, match="growing"):
        read_frames(path, [0], max_pixels=64 * 48)


def test_a_file_that_changes_is_inspected_again(tmp_path, clip):
    path = tmp_path / "clip.mp4"
    shutil.copy(clip, path)
    assert inspect_stream(str(path)).is_seekable
    encode(path, options={"x264-params": "keyint=12:bframes=3:open-gop=1"})
    assert not inspect_stream(str(path)).is_seekable
    with open_stream(str(path)) as opened:
        assert len(list(opened.frames())) == 60
