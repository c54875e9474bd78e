"""UCF101 and HMDB51 with their official splits, as their archives unpack.

    root/
      ucfTrainTestlist/trainlist01.txt, testlist01.txt, ...             UCF101
      testTrainMulti_7030_splits/<class>_test_split1.txt, ...           HMDB51
      <video>.avi                                                       somewhere below
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.classes import class_names
from data_pipelines.errors import DataError, MissingDataError
from data_pipelines.manifest import VideoManifest, files_below

UCF101_SPLITS = "ucfTrainTestlist"
HMDB51_SPLITS = "testTrainMulti_7030_splits"
HMDB51_MARKS = {"train": "1", "val": "2"}  # 0: in neither


def read_ucf101(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split``, "train" or "val" (the test list), in one of the three official folds.

    Raises:
        MissingDataError: the split files are not there.
        DataError: a line that is no "Class/video.avi".
    """
    return _manifest(Path(root), "ucf101", _ucf101_file(Path(root), split, fold), _ucf101(Path(root), split, fold))


def read_hmdb51(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split``, "train" or "val" (the test list), in one of the three official folds.

    Raises:
        MissingDataError: the split files are not there.
        DataError: a line that is no "video.avi 0|1|2".
    """
    return _manifest(Path(root), "hmdb51", _folder(Path(root), HMDB51_SPLITS), _hmdb51(Path(root), split, fold))


def _manifest(root: Path, data_set: str, source: Path, entries: Iterator[tuple[str, str]]) -> VideoManifest:
    names = class_names(data_set)
    ids = {name: number for number, name in enumerate(names)}
    found = files_below(root)
    paths, labels = [], []
    for name, video in entries:
        if name not in ids:
            raise DataError(f"{source}: video {video} is of class {name!r}, which {data_set} does not have")
        paths.append(found.get(video, os.path.join(root, name, video)))
        labels.append(ids[name])
    return VideoManifest(paths, np.array(labels, dtype=np.int64), names, str(source))


def _ucf101_file(root: Path, split: str, fold: int) -> Path:
    name = f"{'train' if split == 'train' else 'test'}list{fold:02d}.txt"
    return _folder(root, UCF101_SPLITS) / name


def _ucf101(root: Path, split: str, fold: int) -> Iterator[tuple[str, str]]:
    file = _ucf101_file(root, split, fold)
    for line in _lines(file):
        name, slash, video = line.split(" ")[0].partition("/")  # the training list has a number behind
        if not slash:
            raise DataError(f"{file}: expected 'Class/video.avi'; found {line!r}")
        yield name, video


def _hmdb51(root: Path, split: str, fold: int) -> Iterator[tuple[str, str]]:
    folder = _folder(root, HMDB51_SPLITS)
    for name in class_names("hmdb51"):
        file = folder / f"{name}_test_split{fold}.txt"
        for line in _lines(file):
            video, _, mark = line.rpartition(" ")
            if mark not in ("0", "1", "2") or not video:
                raise DataError(f"{file}: expected 'video.avi' and 0, 1 or 2; found {line!r}")
            if mark == HMDB51_MARKS[split]:
                yield name, video


def _folder(root: Path, name: str) -> Path:
    for folder in (root / name, root / "annotations", root):
        if folder.is_dir() and any(folder.glob("*.txt")):
            return folder
    raise MissingDataError(f"{root}: no folder {name} with the official splits in it; see README section 'UCF101 and "
                           "HMDB51'")  # fmt: skip


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file; it lists the videos of an official split")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
