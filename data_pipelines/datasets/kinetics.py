"""Kinetics-400, 600 and 700, and any other set given as a list of videos.

Two kinds of list are read, told apart by the first line:

    path label                                                  as SlowFast and VideoMAE have it
    label,youtube_id,time_start,time_end,split[,is_cc]          the official CSV

The CSV names no files. They are looked for by their names, <id>_<start>_<end>.mp4 with six digits each (any video
suffix) or <id>.mp4, in the folders of `SPLIT_FOLDERS` and in root, or in class folders within those, however spelled;
and by their id in CVDF's folder of videos that replace corrupt ones, which come first.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import videos_below
from data_pipelines.io.text_lines import numbered_lines

SEPARATORS = ("\t", ",", ";", " ")
COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
# The first of each is CVDF's, where a video that is not there is reported missing.
SPLIT_FOLDERS = {
    "train": ("train", "videos_train"),
    "val": ("val", "validation", "videos_val"),
    "test": ("test",),
}
REPLACEMENTS = ("replacement", "replacement_for_corrupted_k400")
ID_LETTERS = 11  # of a YouTube id, which may hold _ and -: names are cut there, never split


def read_kinetics(
    list_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    separator: str | None = None,
    class_names: Sequence[str] | None = None,
) -> VideoManifest:
    """Read a list of videos: lines of ``path<separator>label``, or the official CSV.

    Of a line, the label is what follows the last separator, so paths may hold spaces, commas and letters of any script.
    A label of the CSV may differ from its class name in case, and have underscores for spaces.

    Args:
        list_file: UTF-8 text; blank lines are skipped.
        root: folder that relative paths start from, and that the videos of a CSV are looked for in.
        separator: of ``path label`` lists; None finds out which of tab, comma, semicolon and space the first line uses.
        class_names: names of the classes in the order of their ids; by default the ids themselves, or the labels of
            the CSV in alphabetical order.

    Raises:
        MissingDataError: there is no such list.
        DataError: a line without an integer label from 0 up, or with a label beyond the names; a CSV without its
            columns, or with values that cannot be.
    """
    list_file, root = Path(list_file), Path(root)
    if _has_header(list_file):
        return _read_official(list_file, root, class_names)
    paths, labels = [], []
    for number, line in numbered_lines(list_file):
        where = f"{list_file}:{number}"
        separator = separator or _find_separator(line, where)
        path, label = _split(line, separator, where)
        if class_names is not None and label >= len(class_names):
            raise DataError(f"{where}: label {label}, but there are {len(class_names)} classes, from 0 on")
        paths.append(os.path.join(root, path))
        labels.append(label)
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(max(labels, default=-1) + 1))
    return VideoManifest(paths, np.array(labels, dtype=np.int64), names, str(list_file))


def listed_classes(list_file: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The labels of an official CSV in alphabetical order; None for a ``path label`` list, which names no class.

    Raises:
        MissingDataError, DataError: as `read_kinetics`.
    """
    list_file = Path(list_file)
    return _names(row.label for row in _rows(list_file)) if _has_header(list_file) else None


def _find_separator(line: str, where: str) -> str:
    for separator in SEPARATORS:
        path, found, label = line.strip().rpartition(separator)
        if found and path and _is_integer(label):
            return separator
    raise DataError(
        f"{where}: expected 'path label' with an integer label, separated by a tab, comma, semicolon or "
        f"space; found {line.strip()!r}"
    )


def _split(line: str, separator: str, where: str) -> tuple[str, int]:
    path, _, label = line.strip().rpartition(separator)
    if not path.strip() or not _is_integer(label) or int(label) < 0:
        raise DataError(f"{where}: expected 'path{separator}label' with an integer label >= 0; found {line.strip()!r}")
    return path.strip(), int(label)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.removeprefix("-").isdecimal() and text.isascii()


# The official CSV


class _Row(NamedTuple):
    number: int  # line of the file
    label: str
    stem: str  # <id>_<start>_<end>
    split: str  # a key of SPLIT_FOLDERS


def _has_header(list_file: Path) -> bool:
    if not list_file.is_file():
        raise MissingDataError(
            f"{list_file}: no such file; looked for a list of videos there, one 'path label' a line, or the official "
            "CSV; see docs/DATA.md, section 'Preparing Kinetics-400'"
        )
    _, first = next(numbered_lines(list_file), (0, ""))
    return "youtube_id" in _cells(first)


def _read_official(list_file: Path, root: Path, class_names: Sequence[str] | None) -> VideoManifest:
    rows = list(_rows(list_file))
    names = tuple(class_names) if class_names else _names(row.label for row in rows)
    ids = {_spelling(name): label for label, name in enumerate(names)}
    labels = np.zeros(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        label = ids.get(_spelling(row.label))
        if label is None:
            raise DataError(
                f"{list_file}:{row.number}: label {row.label!r} is none of the {len(names)} class names, "
                f"{names[0]} .. {names[-1]}"
            )
        labels[index] = label
    return VideoManifest(_locate(rows, root), labels, names, str(list_file))


def _rows(list_file: Path) -> Iterator[_Row]:
    lines = numbered_lines(list_file)
    number, header = next(lines)
    columns = _cells(header)
    if not set(COLUMNS) <= set(columns):
        hint = "" if "label" in columns else "; a test set without labels can be neither trained on nor scored"
        raise DataError(
            f"{list_file}:{number}: found the columns {','.join(columns)}, must have {','.join(COLUMNS)}{hint}"
        )
    wanted = [columns.index(column) for column in COLUMNS]
    for number, line in lines:
        where, cells = f"{list_file}:{number}", _cells(line)
        if len(cells) != len(columns):
            raise DataError(f"{where}: found {len(cells)} values, must be {len(columns)}: {','.join(columns)}")
        label, video, start, end, split = (cells[column] for column in wanted)
        if len(video) != ID_LETTERS or split not in SPLITS or not label:
            raise DataError(
                f"{where}: found label {label!r}, youtube_id {video!r} and split {split!r}; must be a class name, "
                f"{ID_LETTERS} characters, and one of {', '.join(SPLITS)}"
            )
        stem = f"{video}_{_seconds(start, where):06d}_{_seconds(end, where):06d}"
        yield _Row(number, sys.intern(label), stem, SPLITS[split])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True), [])]


def _seconds(text: str, where: str) -> int:
    try:
        seconds = int(float(text))  # some copies write 12.0
    except (ValueError, OverflowError):
        seconds = -1
    if seconds < 0:
        raise DataError(f"{where}: found the time {text!r}, must be seconds from 0 up")
    return seconds


def _names(labels: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted({_spelling(label): label for label in labels}.values()))


def _spelling(name: str) -> str:
    return name.replace("_", " ").casefold()


def _locate(rows: Sequence[_Row], root: Path) -> list[str]:
    """The file of every row; where there is none, the path that CVDF's layout gives it."""
    ids = {row.stem[:ID_LETTERS] for row in rows}
    own = {row.split for row in rows}
    # A video that lies in several folders is taken from its own split's.
    folders = [name for split in sorted(SPLIT_FOLDERS, key=lambda s: s not in own) for name in SPLIT_FOLDERS[split]]
    places = [(root / name, ()) for name in folders] + [(root, (*folders, REPLACEMENTS[0]))]
    files: dict[str, str] = {}
    for folder, skip in places:
        for _, stem, path in videos_below(folder, skip) if folder.is_dir() else ():
            if stem[:ID_LETTERS] in ids:
                files.setdefault(stem, path)
    corrected = root.joinpath(*REPLACEMENTS)
    replaced = {stem[:ID_LETTERS]: path for _, stem, path in videos_below(corrected)} if corrected.is_dir() else {}
    paths = []
    for row in rows:
        video = row.stem[:ID_LETTERS]
        path = replaced.get(video) or files.get(row.stem) or files.get(video)
        paths.append(path or os.path.join(root, SPLIT_FOLDERS[row.split][0], f"{row.stem}.mp4"))
    return paths
