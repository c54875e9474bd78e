"""Dataset preparation replaces no file that it has not created."""

import os
import shutil
from pathlib import Path

import pytest
from support.in_process import run_tool
from support.paths import ROOT
from support.videos import encode

from data_pipelines.preparation.created_files import claim

CONFIG = ROOT / "configs" / "camera_motion.yaml"


@pytest.fixture
def mine(tmp_path):
    """A user's folder: videos/, and the lists that name them."""
    root = tmp_path / "mine"
    for name in ("a", "b"):
        (root / "videos" / name).mkdir(parents=True)
        encode(root / "videos" / name / "1.mp4", frames=5)
    (root / "classes.txt").write_text("a\nb\n")
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text("videos/a/1.mp4 0\nvideos/b/1.mp4 1\n")
    return root


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Run tools/prepare_dataset.py in this process; returns status, standard output and standard error."""

    def run(root: Path, output: Path, *arguments: object):
        settings = ["data.dataset=kinetics", f"data.root={root}", "data.num_classes=2", "data.camera_motion={}"]
        words = ["--cfg", CONFIG, "--output", output, "--workers", 1, "--short-side", 16, *settings, *arguments]
        return run_tool(monkeypatch, capsys, "prepare_dataset.py", *words)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_refused(result, file, *, is_input: bool):
    status, _, error = result
    assert status == 2 and len(error.splitlines()) == 1, error
    assert error.startswith(f"error: {file}: is read" if is_input else f"error: {file}: "), error


def test_originals_are_not_replaced_by_their_copies(mine, prepare, tmp_path):
    """The copies' folder is OUTPUT/videos, in which the originals may lie, under any name."""
    before = contents(mine)
    lists = ["data.train_list=../train.csv", "data.val_list=../val.csv"]
    for split in ("train", "val"):
        (mine / f"{split}.csv").write_text("a/1.mp4 0\nb/1.mp4 1\n")
    before = contents(mine)
    assert_refused(prepare(mine / "videos", mine, "--copies", *lists), mine / "classes.txt", is_input=True)
    for split in ("train", "val"):
        (mine / f"{split}.csv").rename(tmp_path / f"{split}.csv")
    (mine / "classes.txt").rename(tmp_path / "classes.txt")
    before = contents(mine)
    lists = [f"data.train_list={tmp_path / 'train.csv'}", f"data.val_list={tmp_path / 'val.csv'}"]
    assert_refused(prepare(mine / "videos", mine, "--copies", *lists), mine / "videos/a/1.mp4", is_input=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "videos").symlink_to(mine / "videos")
    assert_refused(prepare(mine / "videos", linked, "--copies", *lists), linked / "videos/a/1.mp4", is_input=True)
    assert contents(mine) == before


def test_lists_of_the_user_are_not_replaced(mine, prepare, tmp_path):
    before = contents(mine)
    assert_refused(prepare(mine, mine, "--copies"), mine / "classes.txt", is_input=True)
    assert contents(mine) == before
    for name in ("train.csv", "skip.txt", "train_videos.csv", "videos/videos/a/1.mp4"):
        output = tmp_path / name.replace("/", "_")
        (output / name).parent.mkdir(parents=True)
        (output / name).write_text("of the user")
        assert_refused(prepare(mine, output, "--copies"), output / name, is_input=False)
        assert contents(output) == {name: b"of the user"}


@pytest.mark.parametrize("has_record", [True, False])
def test_own_files_are_replaced_and_their_originals_are_not(mine, prepare, tmp_path, has_record):
    """Also in a folder that version 0.1 prepared, which kept no record."""
    output = tmp_path / "prepared"
    assert prepare(mine, output, "--copies")[0] == 0
    if not has_record:
        os.unlink(output / ".created_files.jsonl")
    originals = contents(mine)
    encode(mine / "videos" / "a" / "1.mp4", frames=3)  # changed, so it is copied again
    status, printed, error = prepare(mine, output, "--copies")
    assert (status, error.count("error")) == (0, 0) and "2 ok" in printed
    assert contents(mine).keys() == originals.keys()
    before = contents(output)
    # The copies become the originals of their own copies.
    lists = [f"data.train_list={output / 'train.csv'}", f"data.val_list={output / 'val.csv'}"]
    assert_refused(prepare(output, output, "--copies", *lists), output / "classes.txt", is_input=True)
    assert contents(output) == before


def test_a_scan_of_one_split_keeps_the_skip_list_of_the_other(mine, prepare, tmp_path):
    shutil.copytree(mine / "videos" / "b", mine / "videos" / "c")
    (mine / "videos" / "a" / "1.mp4").write_bytes(b"no video")
    (mine / "val.csv").write_text("videos/c/1.mp4 1\nvideos/missing.mp4 0\n")
    output = tmp_path / "prepared"
    status, _, error = prepare(mine, output, "--splits", "train")
    assert status == 0, error
    status, printed, _ = prepare(mine, output, "--splits", "val")
    assert status == 0 and "skip the 2 unreadable videos" in printed
    skipped = [line.split("\t")[0] for line in (output / "skip.txt").read_text().splitlines()]
    assert skipped == [str(mine / "videos/a/1.mp4"), str(mine / "videos/missing.mp4")]


def test_what_a_killed_call_had_not_finished_is_removed(tmp_path):
    copies = tmp_path / "videos" / "a"
    for temporary, file in ((".writing-1", "1.mp4"), (".writing-2", "of_the_user.mp4"), ("other", "1.mp4")):
        (copies / temporary).mkdir(parents=True)
        (copies / temporary / file).write_bytes(b"content")
    claim(tmp_path, [tmp_path / "skip.txt", copies / "1.mp4"], [])
    assert sorted(path.name for path in copies.iterdir()) == [".writing-2", "other"]
