"""Random access to frames, compared with PyAV's sequential decoding."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from support.paths import ROOT, SHARED_DATA
from support.videos import decode_all, encode, truncate

from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.video.backends import require_backend
from data_pipelines.video.reader import open_video, read_frames
from data_pipelines.video.streams import seeking_is_exact

CLOSED_GOP = {"x264-params": "keyint=12:bframes=3"}
OPEN_GOP = {"x264-params": "keyint=12:bframes=3:open-gop=1"}
REAL_FILES = [
    "clips/flipping_a_pancake.mkv",
    "clips/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",  # packed B-frames, unusual metadata
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


def check_random_access(path, backend, trials=6):
    reference = decode_all(path)
    with open_video(path, backend) as video:
        assert video.num_frames == len(reference)
    for seed in range(trials):
        indices = np.random.default_rng(seed).integers(len(reference), size=8)  # unordered, with repetitions
        np.testing.assert_array_equal(read_frames(path, indices, backend), reference[indices])


@pytest.mark.parametrize("backend", ["decord", "pyav", "auto"])
@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv"])
def test_closed_groups_of_pictures(tmp_path, name, backend):
    check_random_access(encode(tmp_path / name, options=CLOSED_GOP), backend)


@pytest.mark.parametrize(
    ("name", "codec", "options", "bframes"),
    [
        ("open_gop.mp4", "libx264", OPEN_GOP, None),
        ("open_gop.mkv", "libx264", OPEN_GOP, None),
        ("b_frames.mp4", "mpeg4", {}, 2),
        ("stream.ts", "libx264", {}, None),
        ("no_timestamps.avi", "libx264", {}, None),
        ("windows.asf", "wmv2", {}, None),
    ],
)
def test_auto_is_exact_where_seeking_with_decord_is_not(tmp_path, name, codec, options, bframes):
    check_random_access(encode(tmp_path / name, codec, options, bframes=bframes), "auto")


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files(name):
    if not (SHARED_DATA / name).is_file():
        pytest.skip(f"sample video {name} is not available")
    check_random_access(SHARED_DATA / name, "auto", trials=2)


def test_rotation_is_the_same_with_decord_and_pyav():
    path = SHARED_DATA / "awkward" / "video_90.mov"
    if not path.is_file():
        pytest.skip("sample video video_90.mov is not available")
    frames = read_frames(path, [0], "decord")
    assert frames.shape == (1, 568, 320, 3)  # stored as 320 x 568
    np.testing.assert_array_equal(frames, read_frames(path, [0], "pyav"))


def test_each_frame_is_read_once(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4")
    with open_video(path, "pyav") as video:
        requests = []
        read = video._reader.read
        monkeypatch.setattr(video._reader, "read", lambda indices: requests.append(indices.tolist()) or read(indices))
        assert video.read([7, 3, 7, 3, 0]).shape == (5, 64, 96, 3)
    assert requests == [[0, 3, 7]]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25), Fraction(1, 2)])
def test_frame_rate_is_exact(tmp_path, rate, backend):
    path = encode(tmp_path / "clip.mp4", frames=4, rate=rate)
    with open_video(path, backend) as video:
        assert video.fps == rate


@pytest.mark.parametrize("indices", [[0, 3], [-1], []])
def test_indices_out_of_range(tmp_path, indices):
    path = encode(tmp_path / "short.mp4", frames=3)
    with pytest.raises(DataError, match=r"short\.mp4: .*0 to 2"):
        read_frames(path, indices)


def test_errors_name_the_file_and_what_each_backend_found(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoDecodeError, match=r"empty\.mp4.*0 bytes"):
        read_frames(tmp_path / "empty.mp4", [0])
    with pytest.raises(MissingDataError, match=r"absent\.mp4"):
        read_frames(tmp_path / "absent.mp4", [0])
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(VideoDecodeError, match="decord: "):
        read_frames(noise, [0], "decord")
    with pytest.raises(VideoDecodeError) as error:
        read_frames(noise, [0])
    message = str(error.value)
    assert message.startswith(f"{noise}: ") and "pyav: " in message and "\n" not in message


def test_a_truncated_file_is_read_by_pyav_alone(tmp_path):
    """decord finds 120 frames of it, or half of them, from one time to the next."""
    intact = encode(tmp_path / "intact.mp4", options=CLOSED_GOP, frames=120, faststart=True)
    assert seeking_is_exact(str(intact))
    truncated = truncate(intact, tmp_path / "truncated.mp4")
    assert not seeking_is_exact(str(truncated))
    with pytest.raises(DataError, match=r"truncated\.mp4: "):
        read_frames(truncated, [119])


def test_unknown_and_missing_backends(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4", options=CLOSED_GOP)
    with pytest.raises(DataError, match="'opencv'"):
        read_frames(path, [0], "opencv")
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(read_frames(path, [7, 3], "auto", timeout=0), decode_all(path)[[7, 3]])
    with pytest.raises(VideoDecodeError, match="decord: "):
        read_frames(path, [0], "decord", timeout=0)
    with pytest.raises(DataError, match="'decord'"):
        require_backend("decord")
    require_backend("pyav")
    require_backend("auto")


def test_importing_the_reader_imports_no_decoder():
    code = "import sys, data_pipelines.video.reader; assert not {'av', 'decord', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
