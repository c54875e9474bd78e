"""Lines of text files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.io.errors import DataError


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file that are not blank, each with its number, counted from 1.

    Raises:
        DataError: the file is not UTF-8 text.
    """
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise DataError(f"{file}: found bytes that are not UTF-8, expected a text file") from None
