"""Kinetics, and any other set given as a list of ``path label`` lines, as SlowFast and VideoMAE do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, MissingDataError
from data_pipelines.manifest import VideoManifest

SEPARATORS = ("\t", ",", ";", " ")


def read_kinetics(
    list_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    separator: str | None = None,
    class_names: Sequence[str] | None = None,
) -> VideoManifest:
    """Read a list of videos, one ``path<separator>label`` a line.

    The label is what follows the last separator, so paths may hold spaces, commas and letters of any script.

    Args:
        list_file: UTF-8 text without a header; blank lines are skipped.
        root: folder that relative paths start from.
        separator: None finds out which of tab, comma, semicolon and space the first line uses.
        class_names: names of the classes in the order of their ids; by default the ids themselves.

    Raises:
        MissingDataError: there is no such list.
        DataError: a line without an integer label from 0 up, or with a label beyond the names.
    """
    list_file, root = Path(list_file), Path(root)
    if not list_file.is_file():
        raise MissingDataError(
            f"{list_file}: no such file; looked for a list of videos there, one 'path label' a line, with "
            f"paths relative to {root}; see README section 'Preparing Kinetics-400'"
        )
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{list_file}: found bytes that are not UTF-8, must be a text file") from None
    paths, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{list_file}:{number}"
        separator = separator or _find_separator(line, where)
        path, label = _split(line, separator, where)
        if class_names is not None and label >= len(class_names):
            raise DataError(f"{where}: label {label}, but there are {len(class_names)} classes, from 0 on")
        paths.append(str(root / path))
        labels.append(label)
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(max(labels, default=-1) + 1))
    return VideoManifest(tuple(paths), np.array(labels, dtype=np.int64), names, str(list_file))


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
