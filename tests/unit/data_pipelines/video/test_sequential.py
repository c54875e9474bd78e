"""Files read once, and live sources, have the frames that plain decoding yields."""

import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from support.videos import decode_all, encode, truncate

from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.video import live, sequential
from data_pipelines.video.live import open_live
from data_pipelines.video.sequential import open_sequence


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.ts", "12:30.mp4"])
def test_all_frames_in_order(tmp_path, name):
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = encode(tmp_path / name, codec, frames=2 * sequential.FRAMES_PER_READ + 3, rate=Fraction(30000, 1001))
    expected = decode_all(f"file:{path}")
    with open_sequence(path) as sequence:
        assert sequence.fps == Fraction(30000, 1001) and sequence.seconds == pytest.approx(
            len(expected) / 29.97, abs=0.2
        )
        assert np.array_equal(np.concatenate(list(sequence.chunks())), expected)
        assert list(sequence.chunks()) == []
    with open_live(str(path)) as source:
        assert source.fps == Fraction(30000, 1001) and np.array_equal(np.stack(list(source.frames)), expected)


def test_several_files_are_read_alternately(tmp_path):
    paths = [encode(tmp_path / f"{frames}.mp4", frames=frames) for frames in (9, 20)]
    with open_sequence(paths[0]) as one, open_sequence(paths[1]) as other:
        chunks = one.chunks(), other.chunks()
        read = [[next(chunks[0])], [next(chunks[1])]]
        read = [[*first, *rest] for first, rest in zip(read, chunks, strict=True)]
    assert [sum(map(len, part)) for part in read] == [9, 20]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "corrupt.mp4").write_bytes(b"no video")
    with (
        pytest.raises(VideoDecodeError, match=r"corrupt\.mp4: cannot be decoded"),
        open_sequence(tmp_path / "corrupt.mp4"),
    ):
        pass
    cut = truncate(encode(tmp_path / "a.mp4", faststart=True, frames=60), tmp_path / "cut.mp4")
    with open_sequence(cut) as sequence:
        try:
            num_frames = sum(map(len, sequence.chunks()))
        except VideoDecodeError as error:
            assert "cut.mp4" in str(error)
        else:
            assert num_frames < 60


def test_a_rate_that_is_not_stated_is_that_of_the_first_frames(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mkv", frames=40, rate=10)
    monkeypatch.setattr(live, "plausible_rate", lambda stated: None)
    with open_live(str(path)) as source:
        assert source.fps == 10 and len(list(source.frames)) == 40


def test_an_address_is_read(tmp_path):
    path = encode(tmp_path / "a.ts", frames=10)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_live(f"http://127.0.0.1:{server.server_port}/a.ts") as source:
                assert np.array_equal(np.stack(list(source.frames)), decode_all(path))
        finally:
            server.shutdown()


def test_sources_open_neither_playlists_nor_other_protocols(tmp_path):
    video = encode(tmp_path / "a.ts", frames=10)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n")
    for source in (tmp_path, tmp_path / "list.m3u8", f"concat:{video}", f"subfile,,start,0,end,0,,:{video}"):
        with pytest.raises(DataError, match="cannot be opened"), open_live(str(source)):
            pass
