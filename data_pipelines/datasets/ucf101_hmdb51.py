"""UCF101 and HMDB51 with their three official splits.

    ucf101/
      ucfTrainTestlist/                   or annotations/, or root itself
        classInd.txt                      "1 ApplyEyeMakeup": class ids start at 1
        trainlist01.txt .. 03             "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"
        testlist01.txt .. 03              the same without the id
      UCF-101/<class>/*.avi               or videos/, or root; with or without class folders
    hmdb51/
      testTrainMulti_7030_splits/         or annotations/, or root itself
        <class>_test_split1.txt .. 3      "name.avi 1": 1 is training, 2 is testing, 0 is unused
      <class>/*.avi                       or videos/<class>/, or hmdb51_org/<class>/

Videos may have been converted to any other format.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.datasets.layout import find_file, find_folder, iterate_videos, require_split
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.io.listing import sorted_entries
from data_pipelines.io.text import numbered_lines

FOLDS = (1, 2, 3)
UCF_LIST_FOLDERS, UCF_VIDEO_FOLDERS = ("ucfTrainTestlist", "annotations", ""), ("UCF-101", "videos", "")
HMDB_LIST_FOLDERS, HMDB_VIDEO_FOLDERS = ("testTrainMulti_7030_splits", "annotations", ""), ("hmdb51_org", "videos", "")
UCF_SPLITS = {"train": "train", "val": "test"}  # as in the names of the lists
HMDB_SPLITS = {"train": "1", "val": "2"}  # as marked in the lists
HMDB_MARKS = ("0", "1", "2")
HINT = "unpack the official split lists there"


def read_ucf101(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split`` ("train", or "val" for the test list) in official split ``fold`` (1 to 3).

    Raises:
        MissingDataError: the lists do not exist.
        DataError: a line does not have the layout above.
    """
    root = Path(root)
    _check_arguments(split, fold)
    class_file = find_file(root, UCF_LIST_FOLDERS, ["classInd.txt"], HINT)
    list_file = find_file(root, UCF_LIST_FOLDERS, [f"{UCF_SPLITS[split]}list{fold:02d}.txt"], HINT)
    class_ids = _read_class_ids(class_file)
    videos, labels = [], []
    for number, line in numbered_lines(list_file):
        video, *class_id = line.split()
        name, slash, _ = video.partition("/")
        if not slash or name not in class_ids:
            raise DataError(
                f"{list_file}:{number}: found {video!r}, expected <class>/<video> with a class of {class_file}"
            )
        expected_id = str(class_ids[name] + 1)
        if class_id not in ([], [expected_id]):
            raise DataError(
                f"{list_file}:{number}: found the class id {' '.join(class_id)}, expected {expected_id} as in "
                f"{class_file}"
            )
        videos.append(video)
        labels.append(class_ids[name])
    paths = _find_videos(videos, root, UCF_VIDEO_FOLDERS)
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(class_ids), str(list_file))


def read_hmdb51(root: str | os.PathLike[str], split: str, fold: int = 1) -> VideoManifest:
    """The videos of ``split`` ("train", or "val" for the test videos) in official split ``fold`` (1 to 3).

    Class ids follow the alphabetical order of the names.

    Raises:
        MissingDataError: the lists do not exist.
        DataError: a line does not have the layout above.
    """
    root = Path(root)
    _check_arguments(split, fold)
    ending = f"_test_split{fold}.txt"
    list_folder = find_file(root, HMDB_LIST_FOLDERS, [f"*{ending}"], HINT).parent
    files = [entry.name for entry in sorted_entries(list_folder) if entry.name.endswith(ending)]
    classes = sorted(file.removesuffix(ending) for file in files)
    videos, labels = [], []
    for label, name in enumerate(classes):
        list_file = list_folder / f"{name}{ending}"
        for number, line in numbered_lines(list_file):
            video, _, mark = line.strip().rpartition(" ")
            if not video or mark not in HMDB_MARKS:
                raise DataError(f"{list_file}:{number}: found {line.strip()!r}, expected '<video> <0, 1 or 2>'")
            if mark == HMDB_SPLITS[split]:
                videos.append(f"{name}/{video.strip()}")
                labels.append(label)
    paths = _find_videos(videos, root, HMDB_VIDEO_FOLDERS)
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(classes), f"{list_folder}/*{ending}")


def _check_arguments(split: str, fold: int) -> None:
    require_split(split, UCF_SPLITS)
    if fold not in FOLDS:
        raise DataError(f"fold: found {fold!r}, expected 1, 2 or 3")


def _read_class_ids(file: Path) -> dict[str, int]:
    """Class name -> id from 0, in the order of the ids."""
    ids: dict[str, int] = {}
    for number, line in numbered_lines(file):
        class_id, _, name = line.strip().partition(" ")
        if class_id != str(len(ids) + 1) or not name or name in ids:
            raise DataError(f"{file}:{number}: found {line.strip()!r}, expected '{len(ids) + 1} <new class name>'")
        ids[name] = len(ids)
    return ids


def _find_videos(videos: Sequence[str], root: Path, folders: Sequence[str]) -> list[str]:
    """The file of each ``<class>/<video>``; for a missing video, its path in the first of ``folders`` that exists."""
    folder = find_folder(root, folders) or root
    files: dict[str, str] = {}
    for class_name, stem, path in iterate_videos(folder):
        # In lower case, because some copies differ: HandstandPushups/v_HandStandPushups_g01_c01.avi
        files.setdefault(f"{class_name}/{stem}".lower(), path)
    paths = []
    for video in videos:
        stem = os.path.splitext(video)[0].lower()
        stem_without_class = f"/{stem.partition('/')[2]}"
        paths.append(files.get(stem) or files.get(stem_without_class) or os.path.join(folder, video))
    return paths
