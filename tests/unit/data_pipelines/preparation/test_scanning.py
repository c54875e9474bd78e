"""Scanning a collection, and copies that train faster."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import decode_all, encode

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.preparation import scanning
from data_pipelines.preparation.scanning import Copies, copy_video, inspect, read_rows, scan
from data_pipelines.video.backends import open_stream
from data_pipelines.video.reader import read_frames


@pytest.fixture
def collection(tmp_path):
    """Four videos (one cannot be jumped in), a broken one and a missing one, in folders with spaces and accents."""
    root = tmp_path / "the videos"
    for folder in ("à pied", "other"):
        (root / folder).mkdir(parents=True)
    encode(root / "à pied" / "one.mp4", frames=30, width=160, height=96)
    encode(root / "à pied" / "two.avi", frames=20)
    encode(root / "other" / "one.mkv", frames=10, rate=Fraction(30000, 1001))
    encode(root / "other" / "small.mp4", frames=5, width=48, height=32)
    (root / "other" / "broken.mp4").write_bytes(b"no video")
    names = [f"à pied/{name}" for name in ("one.mp4", "two.avi")]
    names += [f"other/{name}" for name in ("one.mkv", "small.mp4", "broken.mp4", "gone.mp4")]
    return VideoManifest(tuple(str(root / name) for name in names), np.arange(6) % 2, ("0", "1"), "made here")


def test_every_video_is_described(collection, tmp_path):
    rows = scan(collection, tmp_path / "rows.csv", workers=2, seconds=30)
    assert [row.status for row in rows] == ["ok"] * 4 + ["broken", "missing"]
    assert [row.frames for row in rows] == [30, 20, 10, 5, 0, 0]
    assert [(row.width, row.height) for row in rows[:2]] == [(160, 96), (96, 64)]
    assert [row.exact_jumps for row in rows[:4]] == [True, False, True, True]
    assert [row.label for row in rows] == [0, 1, 0, 1, 0, 1]
    assert rows[2].fps == "30000/1001" and rows[0].seconds == pytest.approx(1.2)
    assert "Invalid data" in rows[4].reason and rows[5].reason == "no such file"
    assert rows[0].bytes == os.path.getsize(rows[0].path)
    assert read_rows(tmp_path / "rows.csv") == rows


def test_an_interrupted_scan_goes_on(collection, tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    rows = scan(collection, file, workers=1, seconds=30)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:20], encoding="utf-8")  # killed while it wrote
    looked, look = [], scanning._look
    monkeypatch.setattr(scanning, "_look", lambda path, *rest: looked.append(Path(path).name) or look(path, *rest))
    assert scan(collection, file, workers=1, seconds=30) == rows
    assert sorted(looked) == ["broken.mp4", "gone.mp4", "small.mp4"]
    looked.clear()
    encode(collection.paths[3], frames=7, width=48, height=32)  # changed since
    assert scan(collection, file, workers=1, seconds=30)[3].frames == 7 and looked == ["small.mp4"]
    file.write_text("another,file\n1,2\n")
    with pytest.raises(DataError, match=r"rows\.csv: is no list of an earlier scan"):
        scan(collection, file, workers=1, seconds=30)


def test_copies_are_small_upright_whole_and_can_be_jumped_in(collection, tmp_path):
    copies = Copies(tmp_path / "copies", Path(collection.paths[0]).parents[1], short_side=48, keyframe_every=4, crf=10)
    kept = VideoManifest((*collection.paths[:2], *collection.paths[3:5]), np.zeros(4, int), ("0",), "made here")
    rows = scan(kept, tmp_path / "rows.csv", workers=2, seconds=60, copies=copies)
    assert [row.status for row in rows] == ["ok"] * 3 + ["broken"] and rows[3].copy == ""
    assert Path(rows[0].copy) == tmp_path / "copies" / "à pied" / "one.mp4"
    for row, size in zip(rows, ((80, 48), (72, 48), (48, 32)), strict=False):
        found = inspect(row.copy)
        assert (found["width"], found["height"]) == size and found["exact_jumps"] and found["frames"] == row.frames
        with open_stream(row.copy) as (container, stream):
            keys = [i for i, frame in enumerate(container.decode(stream)) if frame.key_frame]
        assert keys == list(range(0, row.frames, 4))
        np.testing.assert_array_equal(read_frames(row.copy, range(row.frames)), decode_all(row.copy))
    source, copy = decode_all(rows[2].path).astype(float), decode_all(rows[2].copy).astype(float)
    assert np.abs(source - copy).mean() < 0.1 * np.abs(source[1:] - source[:-1]).mean()  # frame by frame the same
    assert scan(kept, tmp_path / "rows.csv", workers=2, seconds=60, copies=copies) == rows
    same = (collection.paths[2], str(Path(collection.paths[2]).with_suffix(".mp4")))
    clash = VideoManifest(same, np.zeros(2, int), ("0",), "made here")
    with pytest.raises(DataError, match="would have the same copy"):
        scan(clash, tmp_path / "clash.csv", workers=1, seconds=30, copies=copies)


def test_a_copy_of_a_broken_video_leaves_nothing_behind(tmp_path):
    whole = encode(tmp_path / "whole.mp4", options={"movflags": "faststart"}, frames=60).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoDecodeError):
        copy_video(str(tmp_path / "cut.mp4"), str(tmp_path / "copies" / "cut.mp4"), 32, 4, 20)
    assert not list((tmp_path / "copies").iterdir())


def test_pictures_are_videos_too(tmp_path):
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for number in (2, 10, 1):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / "frames" / f"img_{number}.png")
    assert inspect(str(tmp_path / "frames"))["frames"] == 3
    assert read_frames(tmp_path / "frames", [0, 1, 2])[:, 0, 0, 0].tolist() == [1, 2, 10]  # by number, not by letter
    assert read_frames(tmp_path / "frames" / "img_10.png", [0]).shape == (1, 10, 20, 3)
    Image.new("RGB", (10, 10)).save(tmp_path / "frames" / "img_3.png")
    with pytest.raises(VideoDecodeError, match="another size"):
        inspect(str(tmp_path / "frames"))
    with pytest.raises(VideoDecodeError, match=r"img_3\.png is \(10, 10\)"):
        read_frames(tmp_path / "frames", [0, 2])
