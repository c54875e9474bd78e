"""Kinetics-400, 600 and 700, and any other dataset that is given as a list of videos.

The first line distinguishes the kinds of list:

    path label                                                  as in SlowFast and VideoMAE
    path,label[,group] or path,labels[,group]                   a CSV with names, see `label_table`
    label,youtube_id,time_start,time_end,split[,is_cc]          the official CSV

The official CSV names no files. Videos are found by their names, <id>_<start>_<end>.mp4 with six digits each, or
<id>.mp4, with any video suffix. They may lie in the folders of `SPLIT_FOLDERS` or in root, with or without class
folders. Videos in CVDF's folder of replacements for corrupt files take precedence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.datasets.label_table import is_label_table, labels_of_table, read_label_table
from data_pipelines.datasets.layout import iterate_videos
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.text import numbered_lines

SEPARATORS = ("\t", ",", ";", " ")
CSV_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
CSV_SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
# The first folder of each split is CVDF's. A missing video is reported there.
SPLIT_FOLDERS = {
    "train": ("train", "videos_train"),
    "val": ("val", "validation", "videos_val"),
    "test": ("test",),
}
REPLACEMENTS = ("replacement", "replacement_for_corrupted_k400")
MAX_DIGITS = 18  # of a label
MAX_LABEL = 2**20  # without class names, every number up to the largest label is a class
ID_LENGTH = 11  # characters of a YouTube id. Ids may contain _ and -, so names cannot be split at these.


def read_kinetics(
    list_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    separator: str | None = None,
    class_names: Sequence[str] | None = None,
) -> VideoManifest:
    """Read a list of videos: lines of ``path<separator>label``, a CSV with names, or the official CSV.

    The label follows the last separator of a line, so paths may contain spaces, commas and any script. Labels of the
    CSV match class names irrespective of case and of underscores instead of spaces.

    Args:
        list_file: UTF-8 text; blank lines are skipped.
        root: folder that relative paths start from, and that contains the videos of a CSV.
        separator: between path and label; by default the tab, comma, semicolon or space that the first line uses.
        class_names: in the order of the class ids; by default the ids themselves, or the labels of a CSV in
            alphabetical order.

    Raises:
        MissingDataError: the list does not exist.
        DataError: a line has no integer label of at least 0, a label has no class name, or a CSV lacks a column or
            has an invalid value.
    """
    list_file, root = Path(list_file), Path(root)
    if _is_official_csv(list_file):
        return _read_official_csv(list_file, root, class_names)
    if is_label_table(list_file):
        return read_label_table(list_file, root, class_names)
    return _read_path_list(list_file, root, separator, class_names)


def read_csv_classes(list_file: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The labels of a CSV in alphabetical order; None for a ``path label`` list, which names no classes.

    Raises:
        MissingDataError, DataError: as `read_kinetics`.
    """
    list_file = Path(list_file)
    if _is_official_csv(list_file):
        return _unique_names(row.label for row in _read_rows(list_file))
    return labels_of_table(list_file) if is_label_table(list_file) else None


def _is_official_csv(list_file: Path) -> bool:
    if not list_file.is_file():
        raise MissingDataError(
            f"{list_file}: no such file, expected a list of videos ('path label' lines, or the official CSV); see "
            "docs/DATA.md, section 'Preparing Kinetics-400'"
        )
    _, first_line = next(numbered_lines(list_file), (0, ""))
    return "youtube_id" in [cell.strip().strip('"') for cell in first_line.split(",")]


# Lists of "path label" lines


def _read_path_list(
    list_file: Path, root: Path, separator: str | None, class_names: Sequence[str] | None
) -> VideoManifest:
    paths, labels = [], []
    for number, line in numbered_lines(list_file):
        location = f"{list_file}:{number}"
        separator = separator or _detect_separator(line, location)
        path, label = _split_line(line, separator, location)
        if class_names is not None and label >= len(class_names):
            raise DataError(f"{location}: found the label {label}, expected 0 to {len(class_names) - 1}")
        if label > MAX_LABEL:
            raise DataError(f"{location}: found the label {label}, expected at most {MAX_LABEL}")
        paths.append(os.path.join(root, path))
        labels.append(label)
    names = class_names or [str(label) for label in range(max(labels, default=-1) + 1)]
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(names), str(list_file))


def _detect_separator(line: str, location: str) -> str:
    for separator in SEPARATORS:
        path, _, label = line.strip().rpartition(separator)
        if path and _is_integer(label):
            return separator
    raise DataError(
        f"{location}: found {line.strip()!r}, expected 'path label' with an integer label, separated by a tab, comma, "
        "semicolon or space"
    )


def _split_line(line: str, separator: str, location: str) -> tuple[str, int]:
    path, _, label = line.strip().rpartition(separator)
    if not path.strip() or not _is_integer(label) or int(label) < 0:
        raise DataError(f"{location}: found {line.strip()!r}, expected 'path{separator}label' with a label >= 0")
    return path.strip(), int(label)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= MAX_DIGITS


# The official CSV


class _Row(NamedTuple):
    line: int
    label: str
    stem: str  # <id>_<start>_<end>
    split: str  # a key of SPLIT_FOLDERS

    @property
    def video_id(self) -> str:
        return self.stem[:ID_LENGTH]


def _read_official_csv(list_file: Path, root: Path, class_names: Sequence[str] | None) -> VideoManifest:
    rows = list(_read_rows(list_file))
    names = tuple(class_names) if class_names else _unique_names(row.label for row in rows)
    ids = {_normalize(name): label for label, name in enumerate(names)}
    labels = np.zeros(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        label = ids.get(_normalize(row.label))
        if label is None:
            raise DataError(
                f"{list_file}:{row.line}: found the label {row.label!r}, expected one of {len(names)} class names, "
                f"{names[0]} .. {names[-1]}"
            )
        labels[index] = label
    return VideoManifest(_find_videos(rows, root), labels, names, str(list_file))


def _read_rows(list_file: Path) -> Iterator[_Row]:
    for line, (label, video_id, start, end, split) in read_csv(list_file, CSV_COLUMNS, strip=True):
        if len(video_id) != ID_LENGTH or split not in CSV_SPLITS or not label:
            raise DataError(
                f"{list_file}:{line}: found the label {label!r}, youtube_id {video_id!r} and split {split!r}; expected "
                f"a class name, {ID_LENGTH} characters, and one of {', '.join(CSV_SPLITS)}"
            )
        times = [_parse_seconds(time, f"{list_file}:{line}") for time in (start, end)]
        stem = f"{video_id}_{times[0]:06d}_{times[1]:06d}"
        yield _Row(line, sys.intern(label), stem, CSV_SPLITS[split])


def _parse_seconds(text: str, location: str) -> int:
    try:
        seconds = int(float(text))  # some copies contain 12.0
    except (ValueError, OverflowError):
        seconds = -1
    if seconds < 0:
        raise DataError(f"{location}: found the time {text!r}, expected a number of seconds of 0 or more")
    return seconds


def _unique_names(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_normalize(label): label for label in labels}.values()))


def _normalize(name: str) -> str:
    return name.replace("_", " ").casefold()


def _find_videos(rows: Sequence[_Row], root: Path) -> list[str]:
    """The file of each row; for a missing video, the path that it has in CVDF's layout."""
    replacements = {stem[:ID_LENGTH]: path for _, stem, path in iterate_videos(root.joinpath(*REPLACEMENTS))}
    files = _index_files(rows, root)
    paths = []
    for row in rows:
        path = replacements.get(row.video_id) or files.get(row.stem) or files.get(row.video_id)
        paths.append(path or os.path.join(root, SPLIT_FOLDERS[row.split][0], f"{row.stem}.mp4"))
    return paths


def _index_files(rows: Sequence[_Row], root: Path) -> dict[str, str]:
    """File name without suffix -> path, of all files that may belong to ``rows``."""
    video_ids, splits = {row.video_id for row in rows}, {row.split for row in rows}
    # Folders of the listed splits come first: a video that lies in several folders is read from its own split's.
    ordered = sorted(SPLIT_FOLDERS, key=lambda split: split not in splits)
    folders = [folder for split in ordered for folder in SPLIT_FOLDERS[split]]
    files: dict[str, str] = {}
    for folder, skip in [*((root / name, ()) for name in folders), (root, (*folders, REPLACEMENTS[0]))]:
        for _, stem, path in iterate_videos(folder, skip):
            if stem[:ID_LENGTH] in video_ids:
                files.setdefault(stem, path)
    return files
