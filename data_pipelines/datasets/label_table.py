"""Lists of videos as a CSV file with a header:

    path,label                          one class per video, by name
    path,labels                         any number of classes per video, separated by semicolons
    path,label,group                    also the source that a video was cut from, see `group_split`

Other columns are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError
from data_pipelines.io.text import numbered_lines

ONE, SEVERAL = "label", "labels"  # columns
SEPARATOR = ";"


class _Row(NamedTuple):
    line: int
    path: str
    labels: list[str]
    group: str | None


def is_label_table(list_file: Path) -> bool:
    """Whether the first line of a list is the header of such a table."""
    _, first_line = next(numbered_lines(list_file), (0, ""))
    return "path" in (header := _cells(first_line)) and bool({ONE, SEVERAL} & set(header))


def read_label_table(list_file: Path, root: Path, class_names: Sequence[str] | None = None) -> VideoManifest:
    """Read a table; relative paths start from ``root``.

    Args:
        class_names: in the order of the class ids; default: the labels in the table, see `labels_of_table`.

    Raises:
        DataError: the file is no such table, or a label is missing or not among ``class_names``.
    """
    rows, is_multi_label = list(_read_rows(list_file)), _has_several_labels(list_file)
    names = tuple(class_names or _sorted_labels(rows))
    ids = {name: label for label, name in enumerate(names)}
    membership = np.zeros((len(rows), len(names)), dtype=bool)
    for index, row in enumerate(rows):
        for label in row.labels:
            if label not in ids:
                raise DataError(
                    f"{list_file}:{row.line}: found the label {label!r}, expected one of {len(names)} class names, "
                    f"{names[0]} .. {names[-1]}"
                )
            membership[index, ids[label]] = True
    return VideoManifest(
        [os.path.join(root, row.path) for row in rows],
        membership if is_multi_label else membership.argmax(axis=1).astype(np.int64),
        names,
        str(list_file),
        groups=None if rows and rows[0].group is None else [row.group or row.path for row in rows],
    )


def labels_of_table(list_file: Path) -> tuple[str, ...]:
    """All labels of a table: numbers in ascending order, other names in alphabetical order."""
    return _sorted_labels(list(_read_rows(list_file)))


def _sorted_labels(rows: Sequence[_Row]) -> tuple[str, ...]:
    labels = {label for row in rows for label in row.labels}
    if all(label.isdecimal() and label.isascii() for label in labels):
        return tuple(sorted(labels, key=lambda label: (len(label), label)))
    return tuple(sorted(labels))


def _has_several_labels(list_file: Path) -> bool:
    _, first_line = next(numbered_lines(list_file), (0, ""))
    return SEVERAL in _cells(first_line)


def _read_rows(list_file: Path) -> Iterator[_Row]:
    _, first_line = next(numbered_lines(list_file), (0, ""))
    header = _cells(first_line)
    label_column = SEVERAL if SEVERAL in header else ONE
    columns = ["path", label_column, *(["group"] if "group" in header else [])]
    for line, (path, text, *group) in read_csv(list_file, columns, strip=True):
        labels = [label.strip() for label in text.split(SEPARATOR)] if label_column == SEVERAL else [text]
        labels = [label for label in labels if label]
        if not path or (label_column == ONE and not labels):
            raise DataError(f"{list_file}:{line}: found the path {path!r} and label {text!r}, expected both")
        yield _Row(line, path, labels, group[0] if group else None)


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]
