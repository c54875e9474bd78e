"""Trees of class folders, compared with torchvision's reader."""

import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.class_folders import read_class_folders, read_split_folders
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import VIDEO_SUFFIXES
from data_pipelines.video.reader import open_video


def write_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(path)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_order_of_samples_and_classes_matches_torchvision(tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    for split in ("train", "val"):
        for name in ("n02", "n01", "N03", "Löwe", "with space"):
            for file in ("10.JPEG", "2.JPEG", "é.png"):
                write_image(tmp_path / split / name / file)
        expected, manifest = folder(tmp_path / split), read_split_folders(tmp_path, split)
        assert manifest.class_names == tuple(expected.classes)
        assert list(zip(manifest.paths, manifest.labels.tolist(), strict=True)) == expected.samples
        assert (manifest.source, manifest.num_ignored, manifest.missing()) == (str(tmp_path / split), 0, [])


def test_videos_images_and_folders_of_images(tmp_path):
    files = [f"{i:02d}{suffix.upper() if i % 2 else suffix}" for i, suffix in enumerate(VIDEO_SUFFIXES)]
    for file in files:
        touch(tmp_path / "train" / "a" / file)
    for i in (1, 2, 10):
        write_image(tmp_path / "train" / "b" / "frames" / f"img_{i}.png", value=i)
    write_image(tmp_path / "train" / "b" / "single.bmp", value=7)
    ignored = ("a/notes.txt", "b/empty/readme.md", "labels.csv")
    hidden = ("a/._00.mp4", "b/.cache/x.jpg", ".hidden/y.mp4")
    for name in (*ignored, *hidden):
        touch(tmp_path / "train" / name)
    manifest = read_split_folders(tmp_path, "train")
    assert manifest.class_names == ("a", "b") and manifest.missing() == []
    assert manifest.paths == [
        *(str(tmp_path / "train" / "a" / file) for file in files),
        str(tmp_path / "train" / "b" / "frames"),
        str(tmp_path / "train" / "b" / "single.bmp"),
    ]
    assert manifest.labels.tolist() == [0] * len(VIDEO_SUFFIXES) + [1, 1]
    assert manifest.num_ignored == len(ignored)
    for path, values in zip(manifest.paths[-2:], ([1, 2, 10], [7]), strict=True):
        with open_video(path) as video:
            assert video.read(np.arange(video.num_frames))[:, 0, 0, 0].tolist() == values


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_validation_and_training_must_have_the_same_classes(tmp_path, name):
    for file in ("train/a/1.mp4", "train/b/1.mp4", f"{name}/a/2.mp4"):
        touch(tmp_path / file)
    (tmp_path / name / "b").mkdir()
    manifest = read_split_folders(tmp_path, "val")
    assert (manifest.class_names, manifest.labels.tolist()) == (("a", "b"), [0])
    (tmp_path / name / "b").rmdir()
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / 'train'))}: .*'b'.*{name}"):
        read_split_folders(tmp_path, "val")
    touch(tmp_path / name / "b" / "2.mp4")
    touch(tmp_path / name / "c" / "2.mp4")
    with pytest.raises(DataError, match=rf"{name}: .*'c'.*train"):
        read_split_folders(tmp_path, "val")


def test_missing_splits_and_empty_classes(tmp_path):
    for root, split, expected in (
        (tmp_path, "train", "expected train"),
        (tmp_path, "val", "expected val or validation or test"),
        (tmp_path / "absent", "train", "no such folder"),
    ):
        with pytest.raises(MissingDataError, match=rf"{root}: .*{expected}"):
            read_split_folders(root, split)
    with pytest.raises(DataError, match="split: found 'dev'"):
        read_split_folders(tmp_path, "dev")
    touch(tmp_path / "val" / "a" / "1.mp4")
    assert read_split_folders(tmp_path, "val").class_names == ("a",)  # without a training folder
    with pytest.raises(MissingDataError, match=f"Is {tmp_path} the root"):
        read_split_folders(tmp_path / "val", "val")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="train/a: "):
        read_split_folders(tmp_path, "train")


def test_class_folders_without_splits_are_a_validation_set(tmp_path, monkeypatch):
    for name in ("mine/b/1.mp4", "mine/a/2.jpg", "mine/a/3.jpg", "mine/notes.txt", "other/mine/a/1.mp4"):
        touch(tmp_path / name)
    root = tmp_path / "mine"
    manifest = read_split_folders(root, "val")
    assert manifest.paths == [str(root / name) for name in ("a/2.jpg", "a/3.jpg", "b/1.mp4")]
    assert (manifest.class_names, manifest.labels.tolist()) == (("a", "b"), [0, 0, 1])
    assert (manifest.source, manifest.num_ignored) == (str(root), 1)
    monkeypatch.chdir(root)
    assert read_split_folders(".", "val").class_names == ("a", "b")
    with pytest.raises(MissingDataError, match=rf"{root}: .*expected train .*can be tested only"):
        read_split_folders(root, "train")
    with pytest.raises(MissingDataError, match=rf"{tmp_path / 'other'}: .*expected val"):
        read_split_folders(tmp_path / "other", "val")  # one folder too high
    (root / "train").mkdir()  # with a split, the other folders are no classes
    with pytest.raises(MissingDataError, match=rf"{root}: .*expected val"):
        read_split_folders(root, "val")


@pytest.fixture
def three_classes(tmp_path):
    for name in ("n03", "n01", "n02"):
        write_image(tmp_path / name / "1.JPEG")
    touch(tmp_path / "README.txt")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_class_folders_in_a_given_order(three_classes):
    assert read_class_folders(three_classes).class_names == ("n01", "n02", "n03")
    ordered = read_class_folders(three_classes, ["n02", "n03", "n01"])
    assert [path.split("/")[-2] for path in ordered.paths] == ["n02", "n03", "n01"]
    assert ordered.labels.tolist() == [0, 1, 2]
    assert read_class_folders(three_classes, ["n03"], allow_other_folders=True).labels.tolist() == [0]


def test_missing_unknown_and_empty_class_folders(three_classes):
    with pytest.raises(DataError, match=r"'n04' \(1 of 4"):
        read_class_folders(three_classes, ["n01", "n02", "n03", "n04"])
    with pytest.raises(DataError, match=r"'n02'.*\(2 "):
        read_class_folders(three_classes, ["n01"])
    (three_classes / "n04").mkdir()
    with pytest.raises(DataError, match="n04: "):
        read_class_folders(three_classes)
    for name in ("absent", "README.txt", "n04"):
        with pytest.raises(MissingDataError, match=f"{name}: "):
            read_class_folders(three_classes / name)
