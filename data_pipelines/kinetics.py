"""Kinetics-400, -600 and -700 by the official CSV, and any set given as ``path label`` lines, as SlowFast and VideoMAE
do.

The official CSV has the columns label, youtube_id, time_start, time_end, split (and is_cc). The files it means are
found under the root wherever they are, in class folders or all in one, named as the crawler and the CVDF archives name
them: <youtube_id>_<start>_<end>.mp4, six digits each. An id has 11 characters, - and _ among them.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, MissingDataError
from data_pipelines.manifest import VideoManifest, files_below

SEPARATORS = ("\t", ",", ";", " ")
CSV_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
REPLACEMENTS = "replacement"  # CVDF's folder of videos that take the place of corrupt ones
ID_LENGTH = 11


def read_kinetics(
    list_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    separator: str | None = None,
    class_names: Sequence[str] | None = None,
) -> VideoManifest:
    """Read a list of videos: the official CSV, known by its header, or one ``path<separator>label`` a line.

    In a ``path label`` line the label is what follows the last separator, so paths may hold spaces, commas and letters
    of any script.

    Args:
        list_file: UTF-8 text; blank lines are skipped.
        root: folder that relative paths start from; of the official CSV, where its videos are somewhere below.
        separator: None finds out which of tab, comma, semicolon and space the first line uses.
        class_names: names of the classes in the order of their ids; by default the ids themselves, or the labels of the
            CSV in alphabetical order.

    Raises:
        MissingDataError: there is no such list.
        DataError: a line without a label, or with one that is none of the classes.
    """
    list_file, root = Path(list_file), Path(root)
    if not list_file.is_file():
        raise MissingDataError(
            f"{list_file}: no such file; looked for a list of videos there, one 'path label' a line with "
            f"paths relative to {root}, or the official CSV; see README section 'Preparing Kinetics-400'"
        )
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{list_file}: found bytes that are not UTF-8, must be a text file") from None
    if is_official(list_file):
        return _read_official(list_file, lines, root, class_names)
    return _read_pairs(list_file, lines, root, separator, class_names)


def is_official(list_file: Path) -> bool:
    """Whether a list begins as Kinetics' official CSV does."""
    if not list_file.is_file():
        return False
    with list_file.open(encoding="utf-8-sig", errors="replace") as lines:
        return set(CSV_COLUMNS) <= set(next(csv.reader([lines.readline()]), ()))


def _read_pairs(
    list_file: Path, lines: list[str], root: Path, separator: str | None, class_names: Sequence[str] | None
) -> VideoManifest:
    paths, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{list_file}:{number}"
        separator = separator or _find_separator(line, where)
        path, label = _split(line, separator, where)
        if class_names is not None and label >= len(class_names):
            raise DataError(f"{where}: label {label}, but there are {len(class_names)} classes, from 0 on")
        paths.append(os.path.join(root, path))
        labels.append(label)
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(max(labels, default=-1) + 1))
    return VideoManifest(paths, np.array(labels, dtype=np.int64), names, str(list_file))


def _read_official(
    list_file: Path, lines: list[str], root: Path, class_names: Sequence[str] | None
) -> VideoManifest:
    rows = list(csv.DictReader(line for line in lines if line.strip()))
    labels = [(row["label"] or "").replace("_", " ").strip() for row in rows]
    names = tuple(class_names or sorted(set(labels)))
    ids = {name: number for number, name in enumerate(names)}
    for number, label in enumerate(labels, start=2):
        if label not in ids:
            raise DataError(f"{list_file}: row {number} has the label {label!r}, which is none of the {len(names)} "
                            f"classes {names[0]!r} to {names[-1]!r}; a test list has no labels to learn")  # fmt: skip
    found = _by_id(root)
    paths = []
    for number, row in enumerate(rows, start=2):
        try:
            video = row["youtube_id"][:ID_LENGTH]
            start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
        except (TypeError, ValueError):
            raise DataError(f"{list_file}: row {number} is no video id with a start and an end: {row}") from None
        name = f"{video}_{start:06d}_{end:06d}"
        expected = os.path.join(root, row.get("split") or "", f"{name}.mp4")
        paths.append(found.get(name) or found.get(video) or expected)
    return VideoManifest(paths, np.array([ids[label] for label in labels], dtype=np.int64), names, str(list_file))


def _by_id(root: Path) -> dict[str, str]:
    """Every video below the root by its name without suffix; replacements also by their id, and they win."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; data.root must be where the videos are")
    found: dict[str, str] = {}
    replaced: dict[str, str] = {}
    for name, path in files_below(root).items():
        stem = os.path.splitext(name)[0]
        if REPLACEMENTS in os.path.relpath(path, root).split(os.sep):
            replaced |= {stem: path, stem[:ID_LENGTH]: path}
        else:
            found[stem] = path
    for stem in [stem for stem in found if stem[:ID_LENGTH] in replaced]:
        del found[stem]
    return found | replaced


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
        raise DataError(
            f"{where}: expected 'path{separator}label' with an integer label >= 0; found {line.strip()!r}"
        )
    return path.strip(), int(label)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.removeprefix("-").isdecimal() and text.isascii()
