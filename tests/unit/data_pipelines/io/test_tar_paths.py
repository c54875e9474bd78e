"""Paths of files inside a tar."""

import io
import tarfile

import pytest

from data_pipelines.io.tar_paths import TarMember, containing_file, parse_tar_path, size_and_mtime


@pytest.mark.parametrize("name", ["n01/a.jpg", "odd @1+2/b.png", "ünïcode\nline.jpg"])
def test_a_path_survives_a_round_trip(name):
    member = TarMember("/data/my set/train-000003.tar", 1536, 110234, name)
    assert parse_tar_path(str(member)) == member
    assert containing_file(str(member)) == member.tar


@pytest.mark.parametrize(
    "path", ["a.jpg", "a.tar", "a.tar@1/b.jpg", "a.tar@1+2", "a.tar@x+2/b.jpg", f"a.tar@{'9' * 5000}+2/b"]
)
def test_ordinary_paths(path):
    assert parse_tar_path(path) is None and containing_file(path) == path


def test_content_size_and_time(tmp_path):
    tar = tmp_path / "images.tar"
    with tarfile.open(tar, "w") as archive:
        for name, content in (("a", b"first"), ("b", b"second")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with tarfile.open(tar) as archive:
        entry = archive.getmember("b")
        member = TarMember(str(tar), entry.offset_data, entry.size, "b")
    assert parse_tar_path(str(member)) == member and member.read() == b"second"
    assert size_and_mtime(str(member)) == (6, tar.stat().st_mtime_ns)
    assert size_and_mtime(str(tar)) == (tar.stat().st_size, tar.stat().st_mtime_ns)
    with pytest.raises(OSError, match="0 of 6 bytes"):
        member._replace(offset=10**6).read()
