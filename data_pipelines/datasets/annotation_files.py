"""Read annotations from JSON and CSV files. Errors name the file and, where there is one, the line or entry."""

from __future__ import annotations

import csv
import json
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.text import ENCODING

JSON_TYPES: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}


def read_json(file: Path, *types: type) -> Any:
    """Read a UTF-8 JSON file.

    Args:
        file: path of the file.
        types: the types that the content may have; any type by default.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the content is not JSON or has another type.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise MissingDataError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: invalid JSON: {error}") from None
    content = parse_json(text, str(file))
    if types and not isinstance(content, types):
        expected = " or ".join(JSON_TYPES[kind] for kind in types)
        raise DataError(f"{file}: found {excerpt(content)}, expected {expected}")
    return content


def parse_json(text: str, location: str) -> Any:
    """Parse JSON; DataError names ``location``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{location}: invalid JSON: {error}") from None


def json_field(entry: Any, key: str, kind: type, location: str) -> Any:
    """Return ``entry[key]``; DataError unless ``entry`` is an object and the value has type ``kind``."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise DataError(f"{location}: found {excerpt(entry)}, expected {key!r} with {JSON_TYPES[kind]}")
    return value


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
        with open(file, encoding="utf-8-sig", errors=ENCODING[1], newline="") as lines:
            rows = _nonblank_rows(lines, strip, separator)
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
        found, expected = separator.join(header), separator.join(columns)
        raise DataError(f"{location}: found the columns {found}, expected {expected}")
    return [header.index(column) for column in columns]


def excerpt(value: Any) -> str:
    """The value in at most 80 characters, for messages."""
    text = reprlib.repr(value)  # in bounded time, whatever the value's size
    return text if len(text) <= 80 else f"{text[:60]}..."
