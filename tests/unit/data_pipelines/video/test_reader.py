"""Decoding, against PyAV's plain sequential decode as the truth."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from support.paths import ROOT, SHARED_DATA
from support.videos import decode_all, encode

from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.video.reader import open_video, read_frames

DATA = SHARED_DATA
CLOSED = {"x264-params": "keyint=12:bframes=3"}
OPEN = {"x264-params": "keyint=12:bframes=3:open-gop=1"}


def assert_reads_like(path, truth, backend, trials=6):
    with open_video(path, backend) as video:
        assert video.num_frames == len(truth)
    for seed in range(trials):
        indices = np.random.default_rng(seed).integers(len(truth), size=8)  # unordered, with repeats
        np.testing.assert_array_equal(read_frames(path, indices, backend), truth[indices])


@pytest.mark.parametrize("backend", ["decord", "pyav", "auto"])
@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv"])
def test_any_frames_in_any_order(tmp_path, name, backend):
    path = encode(tmp_path / name, options=CLOSED)
    assert_reads_like(path, decode_all(path), backend)


@pytest.mark.parametrize(
    ("name", "codec", "options", "bframes"),
    [
        ("open_gop.mp4", "libx264", OPEN, None),
        ("open_gop.mkv", "libx264", OPEN, None),
        ("b_frames.mp4", "mpeg4", {}, 2),
        ("stream.ts", "libx264", {}, None),
        ("no_timestamps.avi", "libx264", {}, None),
        ("windows.asf", "wmv2", {}, None),
    ],
)
def test_auto_is_exact_where_decord_jumps_wrongly(tmp_path, name, codec, options, bframes):
    path = encode(tmp_path / name, codec, options, bframes=bframes)
    assert_reads_like(path, decode_all(path), "auto")


def test_reads_each_frame_once(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4")
    with open_video(path, "pyav") as video:
        asked = []
        read = video._reader.read
        monkeypatch.setattr(video._reader, "read", lambda indices: asked.append(indices.tolist()) or read(indices))
        assert video.read([7, 3, 7, 3, 0]).shape == (5, 64, 96, 3)
    assert asked == [[0, 3, 7]]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25), Fraction(1, 2)])
def test_frame_rate_is_exact(tmp_path, rate, backend):
    path = encode(tmp_path / "clip.mp4", frames=4, rate=rate)
    with open_video(path, backend) as video:
        assert video.fps == rate


def test_index_outside(tmp_path):
    path = encode(tmp_path / "short.mp4", frames=3)
    for indices in ([0, 3], [-1], []):
        with pytest.raises(DataError, match=r"short\.mp4: .* frames 0 to 2"):
            read_frames(path, indices)


def test_broken_files_say_what_each_backend_found(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoDecodeError, match=r"empty\.mp4.*0 bytes"):
        read_frames(tmp_path / "empty.mp4", [0])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(VideoDecodeError, match=r"noise\.mp4.*pyav: ") as error:
        read_frames(tmp_path / "noise.mp4", [0])
    assert "\n" not in str(error.value)
    with pytest.raises(VideoDecodeError, match="decord: "):
        read_frames(tmp_path / "noise.mp4", [0], "decord")
    with pytest.raises(MissingDataError, match=r"absent\.mp4"):
        read_frames(tmp_path / "absent.mp4", [0])
    with pytest.raises(DataError, match="opencv"):
        read_frames(tmp_path / "noise.mp4", [0], "opencv")


def test_cut_off_file_names_both_backends(tmp_path):
    whole = encode(tmp_path / "whole.mp4", options={"movflags": "faststart", **CLOSED}, frames=120).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoDecodeError) as error, open_video(cut) as video:
        video.read([video.num_frames - 1])
    assert "cut.mp4" in str(error.value) and "pyav: " in str(error.value) and "\n" not in str(error.value)


def test_without_decord_auto_uses_pyav(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4", options=CLOSED)
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(read_frames(path, [7, 3], "auto", seconds=0), decode_all(path)[[7, 3]])
    with pytest.raises(VideoDecodeError, match="decord: "):
        read_frames(path, [0], "decord", seconds=0)


def test_importing_costs_no_decoder():
    code = "import sys, data_pipelines.video.reader; assert not {'av', 'decord', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


REAL = [
    "clips/flipping_a_pancake.mkv",
    "clips/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",  # packed B-frames, odd metadata
    "awkward/long_gop_300.mp4",
    "awkward/naïve näme, 日本 #1.mp4",
    "awkward/odd_77x53_yuv444.mp4",
    "awkward/one_frame.mp4",
    "awkward/start_offset_5s.mkv",
    "awkward/vfr_mkv.mkv",
    "awkward/video_90.mov",
    "awkward/video_180.mov",
    "awkward/video_270.mov",
    "awkward/vp9.webm",
]


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    if not (DATA / name).is_file():
        pytest.skip(f"sample video {name} is not there")
    assert_reads_like(DATA / name, decode_all(DATA / name), "auto", trials=2)


def test_decord_and_pyav_turn_the_picture_alike():
    path = DATA / "awkward" / "video_90.mov"
    if not path.is_file():
        pytest.skip("sample video video_90.mov is not there")
    turned = read_frames(path, [0], "decord")
    assert turned.shape == (1, 568, 320, 3)  # stored as 320 x 568
    np.testing.assert_array_equal(turned, read_frames(path, [0], "pyav"))


@pytest.mark.parametrize("name", ["audio_only.mp4", "corrupted.mp4", "bitflips_in_mdat.mp4", "random_bytes.mp4"])
def test_real_broken_files(name):
    path = DATA / "awkward" / name
    if not path.is_file():
        pytest.skip(f"sample video {name} is not there")
    with pytest.raises(VideoDecodeError, match=name), open_video(path) as video:
        video.read(range(video.num_frames))
