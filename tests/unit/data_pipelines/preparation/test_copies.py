"""Copies that decode faster."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.paths import SHARED_DATA
from support.videos import decode_all, encode, truncate

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.preparation.copies import CopySettings, copy_video
from data_pipelines.preparation.scanning import inspect_video, scan
from data_pipelines.video.reader import read_frames
from data_pipelines.video.streams import open_stream


def manifest_of(*paths: Path) -> VideoManifest:
    return VideoManifest(tuple(map(str, paths)), np.zeros(len(paths), int), ("0",), "test")


def key_frames(path: str) -> list[int]:
    with open_stream(path) as opened:
        return [index for index, frame in enumerate(opened.frames()) if frame.key_frame]


def test_copies_are_small_complete_and_seekable(tmp_path):
    root = tmp_path / "originals"
    (root / "à pied").mkdir(parents=True)
    wide = encode(root / "à pied" / "wide.mp4", frames=30, width=160, height=96)
    inexact = encode(root / "inexact.avi", frames=20)
    small = encode(root / "small.mp4", frames=5, width=48, height=32)
    (root / "corrupt.mp4").write_bytes(b"no video")
    settings = CopySettings(tmp_path / "copies", root, short_side=48, keyframe_every=4, crf=10)
    manifest = manifest_of(wide, inexact, small, root / "corrupt.mp4")
    records = scan(manifest, tmp_path / "videos.csv", workers=2, timeout=60, copies=settings)
    assert [record.status for record in records] == ["ok"] * 3 + ["failed"] and records[3].copy == ""
    assert Path(records[0].copy) == tmp_path / "copies" / "à pied" / "wide.mp4"
    for record, size in zip(records[:3], ((80, 48), (72, 48), (48, 32)), strict=True):
        found = inspect_video(record.copy)
        assert (found["width"], found["height"]) == size and found["exact_jumps"] and found["frames"] == record.frames
        assert key_frames(record.copy) == list(range(0, record.frames, 4))
        np.testing.assert_array_equal(read_frames(record.copy, range(record.frames)), decode_all(record.copy))
    original, copy = decode_all(small).astype(float), decode_all(records[2].copy).astype(float)
    assert np.abs(original - copy).mean() < 0.1 * np.abs(np.diff(original, axis=0)).mean()  # the same frames
    modified = Path(records[0].copy).stat().st_mtime_ns
    assert scan(manifest, tmp_path / "videos.csv", workers=2, timeout=60, copies=settings) == records
    assert Path(records[0].copy).stat().st_mtime_ns == modified
    smaller = replace(settings, short_side=40)
    again = scan(manifest, tmp_path / "videos.csv", workers=2, timeout=60, copies=smaller)
    assert [inspect_video(record.copy)["height"] for record in again[:3]] == [40, 40, 32]


def test_copies_keep_the_frame_rate(tmp_path):
    source = encode(tmp_path / "a.mp4", frames=10, rate=Fraction(30000, 1001))
    copy_video(str(source), str(tmp_path / "copy.mp4"), short_side=32, keyframe_every=4, crf=20)
    assert inspect_video(str(tmp_path / "copy.mp4"))["fps"] == "30000/1001"


def test_copies_are_upright(tmp_path):
    source = SHARED_DATA / "awkward" / "video_90.mov"
    if not source.is_file():
        pytest.skip("sample video video_90.mov is not available")
    copy_video(str(source), str(tmp_path / "copy.mp4"), short_side=400, keyframe_every=4, crf=10)
    original, copy = (decode_all(path)[0].astype(float) for path in (source, tmp_path / "copy.mp4"))
    assert original.shape == copy.shape == (568, 320, 3)
    assert np.abs(original - copy).mean() < 0.2 * np.abs(original - original[::-1, ::-1]).mean()


def test_two_originals_with_the_same_copy_are_an_error(tmp_path):
    settings = CopySettings(tmp_path / "copies", tmp_path)
    with pytest.raises(DataError, match=r"a\.mkv.*a\.mp4"):
        scan(manifest_of(tmp_path / "a.mp4", tmp_path / "a.mkv"), tmp_path / "videos.csv", 1, 30, settings)


def test_originals_outside_the_root_keep_their_whole_path(tmp_path):
    settings = CopySettings(tmp_path / "copies", tmp_path / "root")
    outside = tmp_path / "elsewhere" / "a.avi"
    assert settings.target(str(outside)) == tmp_path / "copies" / str(outside.with_suffix(".mp4")).lstrip("/")


def test_a_corrupt_original_leaves_no_copy(tmp_path):
    intact = encode(tmp_path / "intact.mp4", faststart=True, frames=300)
    corrupt = truncate(intact, tmp_path / "corrupt.mp4")
    with open_stream(str(corrupt)) as opened:
        next(opened.frames())  # decoding fails later
    with pytest.raises(VideoDecodeError):
        copy_video(str(corrupt), str(tmp_path / "copies" / "corrupt.mp4"), 32, 4, 20)
    assert (tmp_path / "copies").is_dir() and not list((tmp_path / "copies").iterdir())
