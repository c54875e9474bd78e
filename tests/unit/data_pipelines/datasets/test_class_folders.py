"""A tree of class folders, against torchvision's reader of the same tree."""

import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.class_folders import read_class_folders, read_folders
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import VIDEO_SUFFIXES
from data_pipelines.video.reader import open_video


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(path)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_pictures_in_imagenets_layout_as_torchvision_orders_them(tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    for split in ("train", "val"):
        for name in ("n02", "n01", "N03", "Löwe", "with space"):
            for file in ("10.JPEG", "2.JPEG", "é.png"):
                picture(tmp_path / split / name / file)
        theirs, ours = folder(tmp_path / split), read_folders(tmp_path, split)
        assert ours.class_names == tuple(theirs.classes)
        assert list(zip(ours.paths, ours.labels.tolist(), strict=True)) == theirs.samples
        assert (ours.source, ours.ignored, ours.missing()) == (str(tmp_path / split), 0, [])


def test_videos_pictures_and_folders_of_pictures_side_by_side(tmp_path):
    files = [f"{i:02d}{suffix.upper() if i % 2 else suffix}" for i, suffix in enumerate(VIDEO_SUFFIXES)]
    for file in files:
        touch(tmp_path / "train" / "a" / file)
    for i in (1, 2, 10):
        picture(tmp_path / "train" / "b" / "frames" / f"img_{i}.png", value=i)
    picture(tmp_path / "train" / "b" / "single.bmp", value=7)
    for other in ("a/notes.txt", "b/empty/readme.md", "labels.csv", "a/._00.mp4", "b/.cache/x.jpg", ".hidden/y.mp4"):
        touch(tmp_path / "train" / other)
    manifest = read_folders(tmp_path, "train")
    assert manifest.class_names == ("a", "b") and manifest.missing() == []
    assert manifest.paths == [
        *(str(tmp_path / "train" / "a" / file) for file in files),
        str(tmp_path / "train" / "b" / "frames"),
        str(tmp_path / "train" / "b" / "single.bmp"),
    ]
    assert manifest.labels.tolist() == [0] * len(VIDEO_SUFFIXES) + [1, 1]
    assert manifest.ignored == 3  # the text, the folder without a picture, the table beside the classes
    for path, values in zip(manifest.paths[-2:], ([1, 2, 10], [7]), strict=True):
        with open_video(path) as video:
            assert video.read(np.arange(video.num_frames))[:, 0, 0, 0].tolist() == values


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_the_validation_folder_has_the_training_classes(tmp_path, name):
    for file in ("train/a/1.mp4", "train/b/1.mp4", f"{name}/a/2.mp4"):
        touch(tmp_path / file)
    (tmp_path / name / "b").mkdir()
    manifest = read_folders(tmp_path, "val")
    assert (manifest.class_names, manifest.labels.tolist()) == (("a", "b"), [0])
    (tmp_path / name / "b").rmdir()
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / 'train'))}: found the class 'b', which .*{name}"):
        read_folders(tmp_path, "val")
    touch(tmp_path / name / "b" / "2.mp4")
    touch(tmp_path / name / "c" / "2.mp4")
    with pytest.raises(DataError, match=rf"{name}: found the class 'c', which .*train lacks"):
        read_folders(tmp_path, "val")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no folder train with"):
        read_folders(tmp_path, "train")
    with pytest.raises(MissingDataError, match="no folder val or validation or test"):
        read_folders(tmp_path, "val")
    with pytest.raises(MissingDataError, match=r"absent: no such folder; must be a folder that holds train with"):
        read_folders(tmp_path / "absent", "train")
    with pytest.raises(DataError, match="split: found 'dev', must be one of train, val"):
        read_folders(tmp_path, "dev")
    touch(tmp_path / "val" / "a" / "1.mp4")
    assert read_folders(tmp_path, "val").class_names == ("a",)  # a machine that only tests
    with pytest.raises(MissingDataError, match=f"is {tmp_path} meant"):
        read_folders(tmp_path / "val", "val")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"a: found no video or picture"):
        read_folders(tmp_path, "train")


def test_class_folders_of_a_set_to_test_on_lack_nothing(tmp_path):
    for name in ("n03", "n01", "n02"):
        picture(tmp_path / name / "1.JPEG")
    touch(tmp_path / "README.txt")
    (tmp_path / ".cache").mkdir()
    assert read_class_folders(tmp_path).class_names == ("n01", "n02", "n03")
    ordered = read_class_folders(tmp_path, ["n02", "n03", "n01"])  # in the order of somebody's ids
    assert [path.split("/")[-2] for path in ordered.paths] == ["n02", "n03", "n01"]
    assert ordered.labels.tolist() == [0, 1, 2]
    assert read_class_folders(tmp_path, ["n03"], among_others=True).labels.tolist() == [0]
    with pytest.raises(DataError, match=r"no folder 'n04' \(1 missing\), and 3 class folders in all; must hold the 4"):
        read_class_folders(tmp_path, ["n01", "n02", "n03", "n04"])
    with pytest.raises(DataError, match=r"the folder 'n02' \(2 unknown\)"):
        read_class_folders(tmp_path, ["n01"])
    (tmp_path / "n04").mkdir()
    with pytest.raises(DataError, match="n04: found no video or picture"):
        read_class_folders(tmp_path)
    with pytest.raises(MissingDataError, match="no such folder"):
        read_class_folders(tmp_path / "absent")
    with pytest.raises(MissingDataError, match="a file; must be a folder"):
        read_class_folders(tmp_path / "README.txt")
    with pytest.raises(MissingDataError, match="no folder of pictures or videos per class"):
        read_class_folders(tmp_path / "n04")
