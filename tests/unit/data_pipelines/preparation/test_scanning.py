"""Scanning a collection."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import encode

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.preparation import scanning
from data_pipelines.preparation.scanning import read_records, scan


@pytest.fixture
def collection(tmp_path):
    """Four videos (one in which seeking is not exact), a corrupt and a missing one; names with spaces and accents."""
    root = tmp_path / "the videos"
    for folder in ("à pied", "other"):
        (root / folder).mkdir(parents=True)
    encode(root / "à pied" / "one.mp4", frames=30, width=160, height=96)
    encode(root / "à pied" / "two.avi", frames=20)
    encode(root / "other" / "one.mkv", frames=10, rate=Fraction(30000, 1001))
    encode(root / "other" / "small.mp4", frames=5, width=48, height=32)
    (root / "other" / "corrupt.mp4").write_bytes(b"no video")
    names = [f"à pied/{name}" for name in ("one.mp4", "two.avi")]
    names += [f"other/{name}" for name in ("one.mkv", "small.mp4", "corrupt.mp4", "absent.mp4")]
    return VideoManifest(tuple(str(root / name) for name in names), np.arange(6) % 2, ("0", "1"), "test")


def test_records_describe_every_video(collection, tmp_path):
    records = scan(collection, tmp_path / "videos.csv", workers=2, timeout=30)
    assert [record.status for record in records] == ["ok"] * 4 + ["failed", "missing"]
    assert [record.frames for record in records] == [30, 20, 10, 5, 0, 0]
    assert [(record.width, record.height) for record in records[:2]] == [(160, 96), (96, 64)]
    assert [record.exact_jumps for record in records[:4]] == [True, False, True, True]
    assert [record.label for record in records] == [0, 1, 0, 1, 0, 1]
    assert records[2].fps == "30000/1001" and records[0].seconds == pytest.approx(1.2)
    assert "Invalid data" in records[4].reason and records[5].reason == "no such file"
    assert records[0].bytes == os.path.getsize(records[0].path)
    assert read_records(tmp_path / "videos.csv") == records


def test_an_interrupted_scan_resumes(collection, tmp_path, monkeypatch):
    file = tmp_path / "videos.csv"
    records = scan(collection, file, workers=1, timeout=30)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:20], encoding="utf-8")  # killed while writing a line
    scanned: list[str] = []
    scan_video = scanning._scan_video

    def recorded(path, *arguments):
        scanned.append(Path(path).name)
        return scan_video(path, *arguments)

    monkeypatch.setattr(scanning, "_scan_video", recorded)
    assert scan(collection, file, workers=1, timeout=30) == records
    assert sorted(scanned) == ["absent.mp4", "corrupt.mp4", "small.mp4"]
    scanned.clear()
    encode(Path(collection.paths[3]), frames=7, width=48, height=32)  # changed since the scan
    assert scan(collection, file, workers=1, timeout=30)[3].frames == 7
    assert sorted(scanned) == ["corrupt.mp4", "small.mp4"]  # what failed is tried again


def test_scans_of_version_0_1_are_read(tmp_path):
    (tmp_path / "videos.csv").write_text(
        "path,label,status,frames,fps,seconds,width,height,bytes,modified,codec,exact_jumps,reason,copy\n"
        "a.mp4,3,broken,0,,0.0,0,0,8,1700000000,,False,pyav: Invalid data,\n"
        "b,1,ok,3,25,0.12,20,10,4096,1700000000,pictures,True,,\n"
    )
    corrupt, images = read_records(tmp_path / "videos.csv")
    assert (corrupt.path, corrupt.label, corrupt.status, corrupt.exact_jumps) == ("a.mp4", 3, "failed", False)
    assert (images.codec, images.seconds, images.exact_jumps) == ("images", 0.12, True)


def test_another_csv_file_is_an_error(collection, tmp_path):
    (tmp_path / "other.csv").write_text("another,file\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv: .*'another'"):
        scan(collection, tmp_path / "other.csv", workers=1, timeout=30)
    assert (tmp_path / "other.csv").read_text() == "another,file\n1,2\n"
