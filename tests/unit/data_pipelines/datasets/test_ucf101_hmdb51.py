"""UCF101 and HMDB51: official lists written as they are distributed, videos where people have them."""

import pytest

from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.datasets.ucf101_hmdb51 import read_hmdb51, read_ucf101
from data_pipelines.io.errors import DataError, MissingDataError

UCF, HMDB = class_names("ucf101"), class_names("hmdb51")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_ucf(folder):
    """Groups 8 to 10 of every class train and 1 to 2 test in split 1; in splits 2 and 3 all is moved by a group."""
    folder.mkdir(parents=True)
    lines = [f"{i} {name}" for i, name in enumerate(UCF, start=1)]
    (folder / "classInd.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    for fold in (1, 2, 3):
        train = [f"{video(name, g + fold - 1)} {i}" for i, name in enumerate(UCF, start=1) for g in (8, 9, 10)]
        test = [video(name, g + fold - 1) for name in UCF for g in (1, 2)]
        (folder / f"trainlist{fold:02d}.txt").write_bytes("\r\n".join(train).encode() + b"\r\n")
        (folder / f"testlist{fold:02d}.txt").write_bytes("\r\n".join(test).encode())


def video(name, group):
    return f"{name}/v_{name.replace('Handstand', 'HandStand')}_g{group:02d}_c01.avi"


@pytest.mark.parametrize("lists", ["ucfTrainTestlist", "annotations"])
@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("UCF-101", lambda path: path),
        ("UCF-101", lambda path: path.split("/")[1]),
        ("videos", lambda path: path.replace(".avi", ".mp4")),
        ("videos", lambda path: path.replace("HandStand", "Handstand")),
    ],
)
def test_ucf101(tmp_path, lists, folder, place):
    write_ucf(tmp_path / lists)
    groups = {"train": (10, 11, 12), "val": (3, 4)}  # of split 3
    for split, wanted in groups.items():
        files = [place(video(name, group)) for name in UCF for group in wanted]
        for file in files[1:]:
            touch(tmp_path / folder / file)
        manifest = read_ucf101(tmp_path, split, fold=3)
        absent = str(tmp_path / folder / video(UCF[0], wanted[0]))
        assert manifest.paths == [absent, *(str(tmp_path / folder / file) for file in files[1:])]
        assert manifest.labels.tolist() == [label for label in range(101) for _ in wanted]
        assert manifest.class_names == UCF and manifest.missing() == [0]


def write_hmdb(folder):
    folder.mkdir(parents=True)
    for fold in (1, 2, 3):
        for name in HMDB:  # as distributed, every line ends with a space
            lines = [f"{name}_{number}.avi {(number + fold) % 3} \n" for number in range(6)]
            (folder / f"{name}_test_split{fold}.txt").write_text("".join(lines))


@pytest.mark.parametrize("folder", ["", "videos", "hmdb51_org"])
@pytest.mark.parametrize("lists", ["testTrainMulti_7030_splits", "annotations"])
def test_hmdb51(tmp_path, lists, folder):
    write_hmdb(tmp_path / lists)
    for name in HMDB:
        for number in range(6):
            touch(tmp_path / folder / name / f"{name}_{number}.avi")
    for fold in (1, 2, 3):
        for split, mark in (("train", 1), ("val", 2)):
            manifest = read_hmdb51(tmp_path, split, fold)
            numbers = [number for number in range(6) if (number + fold) % 3 == mark]
            wanted = [tmp_path / folder / name / f"{name}_{number}.avi" for name in HMDB for number in numbers]
            assert manifest.paths == [str(path) for path in wanted]
            assert manifest.labels.tolist() == [label for label in range(51) for _ in numbers]
            assert manifest.class_names == HMDB and on_disk(manifest) is manifest


def test_what_is_wrong_is_named(tmp_path):
    for read in (read_ucf101, read_hmdb51):
        with pytest.raises(MissingDataError, match="unpack the official splits there"):
            read(tmp_path, "train")
        with pytest.raises(DataError, match="fold: found 0, must be 1, 2 or 3"):
            read(tmp_path, "train", fold=0)
        with pytest.raises(DataError, match="split: found 'test', must be one of train, val"):
            read(tmp_path, "test")
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    for line, message in (
        ("Archery/v_a.avi 2", r"trainlist01\.txt:2: found the class id 2, must be 1"),
        ("Diving/v_a.avi 1", r"trainlist01\.txt:2: found 'Diving/v_a\.avi', must be <class>/<video>"),
        ("v_a.avi", r"trainlist01\.txt:2: found 'v_a\.avi', must be <class>/<video>"),
    ):
        (tmp_path / "trainlist01.txt").write_text(f"Biking/v_b.avi 2\n{line}\n")
        with pytest.raises(DataError, match=message):
            read_ucf101(tmp_path, "train")
    (tmp_path / "classInd.txt").write_text("0 Archery\n")
    with pytest.raises(DataError, match=r"classInd\.txt:1: found '0 Archery', must be '1 <"):
        read_ucf101(tmp_path, "train")
    (tmp_path / "wave_test_split2.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(DataError, match=r"wave_test_split2\.txt:2: found 'b\.avi 3', must be"):
        read_hmdb51(tmp_path, "train", fold=2)
