"""UCF101 and HMDB51: lists as they are distributed, videos in several layouts."""

import pytest

from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.manifest import exclude_missing
from data_pipelines.datasets.ucf101_hmdb51 import read_hmdb51, read_ucf101
from data_pipelines.io.errors import DataError, MissingDataError

UCF, HMDB = class_names("ucf101"), class_names("hmdb51")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def ucf_video(name, group):
    return f"{name}/v_{name.replace('Handstand', 'HandStand')}_g{group:02d}_c01.avi"


def write_ucf_lists(folder):
    """Split 1: groups 8 to 10 of each class train, 1 and 2 test. Splits 2 and 3 are shifted by one and two groups."""
    folder.mkdir(parents=True)
    lines = [f"{i} {name}" for i, name in enumerate(UCF, start=1)]
    (folder / "classInd.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    for fold in (1, 2, 3):
        train = [f"{ucf_video(name, g + fold - 1)} {i}" for i, name in enumerate(UCF, start=1) for g in (8, 9, 10)]
        test = [ucf_video(name, g + fold - 1) for name in UCF for g in (1, 2)]
        (folder / f"trainlist{fold:02d}.txt").write_bytes("\r\n".join(train).encode() + b"\r\n")
        (folder / f"testlist{fold:02d}.txt").write_bytes("\r\n".join(test).encode())


@pytest.mark.parametrize(
    ("lists", "folder", "path_on_disk"),
    [
        ("ucfTrainTestlist", "UCF-101", lambda path: path),
        ("annotations", "UCF-101", lambda path: path.split("/")[1]),
        ("ucfTrainTestlist", "videos", lambda path: path.replace(".avi", ".mp4")),
        ("annotations", "videos", lambda path: path.replace("HandStand", "Handstand")),
    ],
)
def test_ucf101(tmp_path, lists, folder, path_on_disk):
    """All videos but the first exist."""
    write_ucf_lists(tmp_path / lists)
    for split, groups in {"train": (10, 11, 12), "val": (3, 4)}.items():
        files = [path_on_disk(ucf_video(name, group)) for name in UCF for group in groups]
        for file in files[1:]:
            touch(tmp_path / folder / file)
        manifest = read_ucf101(tmp_path, split, fold=3)
        missing = str(tmp_path / folder / ucf_video(UCF[0], groups[0]))
        assert manifest.paths == [missing, *(str(tmp_path / folder / file) for file in files[1:])]
        assert manifest.labels.tolist() == [label for label in range(101) for _ in groups]
        assert manifest.class_names == UCF and manifest.missing() == [0]


@pytest.mark.parametrize(
    ("lists", "folder"),
    [("testTrainMulti_7030_splits", ""), ("annotations", "videos"), ("annotations", "hmdb51_org")],
)
def test_hmdb51(tmp_path, lists, folder):
    (tmp_path / lists).mkdir()
    for name in HMDB:
        for fold in (1, 2, 3):  # lines end with a space, as in the distributed lists
            lines = [f"{name}_{number}.avi {(number + fold) % 3} \n" for number in range(6)]
            (tmp_path / lists / f"{name}_test_split{fold}.txt").write_text("".join(lines))
        for number in range(6):
            touch(tmp_path / folder / name / f"{name}_{number}.avi")
    for fold in (1, 2, 3):
        for split, mark in (("train", 1), ("val", 2)):
            manifest = read_hmdb51(tmp_path, split, fold)
            numbers = [number for number in range(6) if (number + fold) % 3 == mark]
            expected = [tmp_path / folder / name / f"{name}_{number}.avi" for name in HMDB for number in numbers]
            assert manifest.paths == [str(path) for path in expected]
            assert manifest.labels.tolist() == [label for label in range(51) for _ in numbers]
            assert manifest.class_names == HMDB and exclude_missing(manifest) is manifest


@pytest.mark.parametrize("read", [read_ucf101, read_hmdb51])
def test_missing_lists_and_invalid_arguments(tmp_path, read):
    with pytest.raises(MissingDataError, match=str(tmp_path)):
        read(tmp_path, "train")
    with pytest.raises(DataError, match="fold: found 0"):
        read(tmp_path, "train", fold=0)
    with pytest.raises(DataError, match="split: found 'test'"):
        read(tmp_path, "test")


@pytest.mark.parametrize(
    ("line", "found"),
    [("Archery/v_a.avi 2", "2, expected 1"), ("Diving/v_a.avi 1", r"'Diving/v_a\.avi'"), ("v_a.avi", r"'v_a\.avi'")],
)
def test_an_invalid_line_of_ucf101_is_named(tmp_path, line, found):
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    (tmp_path / "trainlist01.txt").write_text(f"Biking/v_b.avi 2\n{line}\n")
    with pytest.raises(DataError, match=rf"trainlist01\.txt:2: .*{found}"):
        read_ucf101(tmp_path, "train")
    (tmp_path / "classInd.txt").write_text("0 Archery\n")
    with pytest.raises(DataError, match=r"classInd\.txt:1: found '0 Archery'"):
        read_ucf101(tmp_path, "train")


def test_an_invalid_line_of_hmdb51_is_named(tmp_path):
    (tmp_path / "wave_test_split2.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(DataError, match=r"wave_test_split2\.txt:2: found 'b\.avi 3'"):
        read_hmdb51(tmp_path, "train", fold=2)
