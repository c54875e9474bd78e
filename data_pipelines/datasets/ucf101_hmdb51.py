"""UCF101 and HMDB51 with their three official splits.

    ucf101/
      ucfTrainTestlist/                   or annotations/, or root itself
        classInd.txt                      "1 ApplyEyeMakeup": class ids from 1 on
        trainlist01.txt .. 03             "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"
        testlist01.txt .. 03              the same without the id
      UCF-101/<class>/*.avi               or videos/, or root; class folders or none
    hmdb51/
      testTrainMulti_7030_splits/         or annotations/, or root itself
        <class>_test_split1.txt .. 3      "name.avi 1": 1 trains, 2 tests, 0 is not used
      <class>/*.avi                       or videos/<class>/, or hmdb51_org/<class>/

Videos may have been converted to any other suffix.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import videos_below
from data_pipelines.io.text_lines import numbered_lines

FOLDS = (1, 2, 3)
UCF_LISTS, UCF_VIDEOS = ("ucfTrainTestlist", "annotations", ""), ("UCF-101", "videos", "")
HMDB_LISTS, HMDB_VIDEOS = ("testTrainMulti_7030_splits", "annotations", ""), ("hmdb51_org", "videos", "")
UCF_SPLITS = {"train": "train", "val": "test"}  # as in the names of the lists
HMDB_SPLITS = {"train": "1", "val": "2"}  # as marked in the lists
HMDB_MARKS = ("0", "1", "2")


def read_ucf101(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split`` ("train", or "val" for the test list) of one of the official splits 1 to 3.

    Raises:
        MissingDataError: the lists are not there.
        DataError: a line that does not follow the layout above; names it.
    """
    root = Path(root)
    _check(split, UCF_SPLITS, fold)
    listed = f"{UCF_SPLITS[split]}list{fold:02d}.txt"
    index, list_file = (_find_file(root, UCF_LISTS, name) for name in ("classInd.txt", listed))
    ids = _read_class_index(index)
    videos, labels = [], []
    for number, line in numbered_lines(list_file):
        where, (path, *label) = f"{list_file}:{number}", line.split()
        name, slash, _ = path.partition("/")
        if not slash or name not in ids:
            raise DataError(f"{where}: found {path!r}, must be <class>/<video> with a class of {index}")
        if label not in ([], [str(ids[name] + 1)]):
            raise DataError(f"{where}: found the class id {' '.join(label)}, must be {ids[name] + 1}, as in {index}")
        videos.append(path)
        labels.append(ids[name])
    paths = _locate(videos, root, UCF_VIDEOS)
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(ids), str(list_file))


def read_hmdb51(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split`` ("train", or "val" for those that test) of one of the official splits 1 to 3.

    Class ids are the alphabetical order of the names.

    Raises:
        MissingDataError: the lists are not there.
        DataError: a line that does not follow the layout above; names it.
    """
    root = Path(root)
    _check(split, HMDB_SPLITS, fold)
    ending = f"_test_split{fold}.txt"
    folder = _find_file(root, HMDB_LISTS, f"*{ending}").parent
    classes = sorted(file.name.removesuffix(ending) for file in folder.glob(f"*{ending}"))
    videos, labels = [], []
    for label, name in enumerate(classes):
        list_file = folder / f"{name}{ending}"
        for number, line in numbered_lines(list_file):
            video, _, mark = line.strip().rpartition(" ")
            if not video or mark not in HMDB_MARKS:
                raise DataError(f"{list_file}:{number}: found {line.strip()!r}, must be '<video> <0, 1 or 2>'")
            if mark == HMDB_SPLITS[split]:
                videos.append(f"{name}/{video.strip()}")
                labels.append(label)
    paths = _locate(videos, root, HMDB_VIDEOS)
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(classes), f"{folder}/*{ending}")


def _check(split: str, splits: dict[str, str], fold: int) -> None:
    if split not in splits:
        raise DataError(f"split: found {split!r}, must be one of {', '.join(splits)}")
    if fold not in FOLDS:
        raise DataError(f"fold: found {fold!r}, must be 1, 2 or 3, one of the official splits")


def _find_file(root: Path, folders: Sequence[str], pattern: str) -> Path:
    found = (file for folder in folders for file in sorted((root / folder).glob(pattern)))
    file = next(found, None)
    if file is None:
        places = ", ".join(filter(None, folders))
        raise MissingDataError(f"{root}: no {pattern}, in it or its folders {places}; unpack the official splits there")
    return file


def _read_class_index(file: Path) -> dict[str, int]:
    """Class name -> id from 0 on, in the order of the ids."""
    ids: dict[str, int] = {}
    for number, line in numbered_lines(file):
        label, _, name = line.strip().partition(" ")
        if label != str(len(ids) + 1) or not name or name in ids:
            raise DataError(f"{file}:{number}: found {line.strip()!r}, must be '{len(ids) + 1} <another class name>'")
        ids[name] = len(ids)
    return ids


def _locate(videos: Sequence[str], root: Path, folders: Sequence[str]) -> list[str]:
    """The file of every ``<class>/<video>``; where there is none, its path in the first of ``folders`` there is."""
    folder = next(root / name for name in folders if (root / name).is_dir() or not name)
    files: dict[str, str] = {}
    for name, stem, path in videos_below(folder) if folder.is_dir() else ():
        # Some copies differ in case: HandstandPushups/v_HandStandPushups_g01_c01.avi
        files.setdefault(f"{name}/{stem}".lower(), path)
    paths = []
    for video in videos:
        stem = os.path.splitext(video)[0].lower()
        flat = f"/{stem.partition('/')[2]}"
        paths.append(files.get(stem) or files.get(flat) or os.path.join(folder, video))
    return paths
