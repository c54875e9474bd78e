"""Shards that are not what they should be: damaged, hostile, or with members that are no samples."""

import os
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from support.tars import image_bytes, write_tar

from data_pipelines.datasets import shard_index
from data_pipelines.datasets.shards import read_shards
from data_pipelines.io.errors import DataError
from data_pipelines.io.tar_paths import parse_tar_path
from data_pipelines.video.reader import read_frames

CLASSES = ("n01", "n02", "n03")


def shard_with(*members):
    return lambda folder: write_tar(folder / "train.tar", members)


TWO_IMAGES = shard_with(("1.png", image_bytes(1)), ("1.cls", b"1"), ("2.png", image_bytes(1)), ("2.cls", b"1"))


def compressed(folder):
    with tarfile.open(folder / "train.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("1.png"))


def truncated(num_bytes):
    return lambda folder: os.truncate(TWO_IMAGES(folder), num_bytes)


def overwritten(folder):
    with TWO_IMAGES(folder).open("r+b") as content:
        content.seek(2048)
        content.write(b"garbage" * 20)


def header(size=0, kind=tarfile.REGTYPE, tar_format=tarfile.GNU_FORMAT, **extended):
    """The header of 1.png; its values may be impossible."""
    member = tarfile.TarInfo("1.png")
    member.size, member.type, member.pax_headers = size, kind, extended
    return member.tobuf(tar_format)


def blocks(*content):
    return lambda folder: (folder / "train.tar").write_bytes(b"".join(content) + bytes(1024))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (blocks(header(-512)), "damaged at byte 0"),  # the header would follow itself
        (blocks(header(-512, b"Z")), "damaged at byte 0"),
        (blocks(*[header(1, tarfile.GNUTYPE_LONGNAME) + b"x".ljust(512, b"\0")] * 2000), "recursion"),
        (blocks(header(tar_format=tarfile.PAX_FORMAT, **{"GNU.sparse.map": "a,b"})), "uncompressed"),
        (blocks(header(tar_format=tarfile.PAX_FORMAT, path="a\0.png")), "damaged"),
        (blocks(header(2**80)), "uncompressed|read"),
        (truncated(3584), "unexpected end"),  # in the content of a label
        (lambda folder: os.mkfifo(folder / "train.tar"), "not a regular file"),
        (shard_with(("1.png", b"")), r"1\.png has no label.*1\.cls"),
        (shard_with(("1.png", b""), ("1.cls", b"dog")), r"1\.png has no label"),
        (shard_with(("1.png", b""), ("1.json", b'{"label": true}')), r"1\.png has no label"),
        (shard_with(("1.png", b""), ("1.json", b"[" * 100000)), r"1\.png has no label"),
        (shard_with(("1.png", b""), ("1.cls", b"7")), r"1\.png: found the label 7, .* 3"),
        (shard_with(("1.png", b""), ("1.jpg", b""), ("1.cls", b"1")), r"1\.png and 1\.jpg"),
        (shard_with(("1.cls", b"1")), "no image"),
        (compressed, "uncompressed"),
        (truncated(700), "uncompressed|byte"),
        (truncated(2048), "byte 2048"),
        (overwritten, "byte 2048"),
        (lambda folder: (folder / "train.tar").mkdir(), "cannot be read"),
        (lambda folder: None, "no such shard"),
    ],
)
def test_an_invalid_shard_is_one_line_with_its_name(tmp_path, make, found):
    make(tmp_path)
    with pytest.raises(DataError, match=rf"{tmp_path}/.*train.*\.tar: .*({found})") as caught:
        read_shards(tmp_path, "*train*.tar", CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["offsets", "sizes", "labels"])
@pytest.mark.parametrize("values", [[-1], [0, 1], [0.5], [[1]], ["x"], [], 1])
def test_an_index_that_came_with_a_shard_is_used_only_if_it_is_plausible(tmp_path, column, values):
    shard = write_tar(tmp_path / "train.tar", [("1.png", image_bytes(7)), ("1.cls", b"1")])
    expected = read_shards(tmp_path, "train.tar", CLASSES)
    with np.load(shard_index.index_file(str(shard))) as stored:
        arrays = {**stored, column: np.array(values)}
    np.savez(shard_index.index_file(str(shard)), **arrays)
    assert read_shards(tmp_path, "train.tar", CLASSES).paths == expected.paths
    assert read_shards(tmp_path, "train.tar", CLASSES).labels.tolist() == [1]


def test_hidden_members_do_not_separate_an_image_from_its_label(tmp_path):
    members = [
        ("._a.png", b"AppleDouble"),
        ("x/a.png", image_bytes(3)),
        ("x/._a.cls", b"AppleDouble"),
        ("x/a.cls", b"0"),
    ]
    write_tar(tmp_path / "train-0.tar", members)
    manifest = read_shards(tmp_path, "train-0.tar", CLASSES)
    assert read_frames(manifest.paths[0], [0])[0, 0, 0].tolist() == [3, 3, 3] and len(manifest) == 1


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_a_sparse_member_is_ignored_and_costs_no_other_image(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(image_bytes(5))
        (tmp_path / f"{name}.cls").write_text("1")
    with open(tmp_path / "b.png", "ab") as file:
        file.truncate(2**20)
    members = ["a.png", "a.cls", "b.png", "b.cls"]
    subprocess.run(["tar", "--sparse", "-cf", "train-0.tar", *members], cwd=tmp_path, check=True)
    manifest = read_shards(tmp_path, "train-0.tar", CLASSES)
    assert [parse_tar_path(path).name for path in manifest.paths] == ["a.png"] and manifest.num_ignored == 2
