"""Read CSV files with a header. Errors name the file and the line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_pipelines.io.errors import DataError
from data_pipelines.io.text import one_line, text_lines


def read_csv(
    file: Path, columns: Sequence[str], strip: bool = False, separator: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the values of ``columns``, in this order, for each row of a CSV file with a header.

    Args:
        file: text. Other columns and blank lines are ignored.
        columns: names that the header must contain.
        strip: ignore spaces around values and names.
        separator: between values, one character.

    Raises:
        DataError: the file is no CSV, lacks a column, or a row does not match the header.
    """
    try:
        rows = _nonblank_rows(text_lines(file, newline=""), strip, separator)
        line, header = next(rows, (1, []))
        positions = _positions(header, columns, separator, f"{file}:{line}")
        for line, values in rows:
            if not max(positions) < len(values) <= len(header):
                raise DataError(
                    f"{file}:{line}: found {len(values)} values, expected {len(header)} as in the header; "
                    f"quote values that contain {separator!r}"
                )
            yield line, [values[position] for position in positions]
    except csv.Error as error:
        raise DataError(f"{file}: not a CSV file: {error}") from None


def _nonblank_rows(lines: Iterable[str], strip: bool, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=strip)
    for row in reader:
        values = [value.strip() for value in row] if strip else row
        if values not in ([], [""]):
            yield reader.line_num, values


def _positions(header: list[str], columns: Sequence[str], separator: str, location: str) -> list[int]:
    if not set(columns) <= set(header):
        found, expected = separator.join(map(one_line, header)), separator.join(columns)
        raise DataError(f"{location}: found the columns {found}, expected {expected}")
    return [header.index(column) for column in columns]
