"""Read JSON files of any origin in bounded time and memory. Errors name the file, and where there is one, the entry."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.text import ENCODING, intact_lines, require_regular

JSON_TYPES: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
MAX_BYTES = 2**30  # the largest annotations in use, COCO's captions, have 2**27
CONTEXT = 40  # characters that show where an error is
SMALL_BYTES = 2**26  # of files that describe one model, test or dataset


def read_json(file: Path, *types: type, max_bytes: int = MAX_BYTES) -> Any:
    """Read a UTF-8 JSON file.

    Args:
        file: path of the file.
        types: the types that the content may have; any type by default.
        max_bytes: size of the largest file that is read.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the file is a pipe, or its content is not JSON, too large, too deeply nested or of another type.
    """
    try:
        require_regular(file, max_bytes)
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingDataError(f"{file}: no such file") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: invalid JSON: {error}") from None
    content = parse_json(text, str(file))
    if types and not isinstance(content, types):
        expected = " or ".join(JSON_TYPES[kind] for kind in types)
        raise DataError(f"{file}: found {excerpt(content)}, expected {expected}")
    return content


def parse_json(text: str | bytes, location: str) -> Any:
    """Parse JSON; DataError names ``location``."""
    try:
        content = json.loads(text)
        if "\\ud" in (text if isinstance(text, str) else text.decode("latin-1")).lower():  # surrogates
            _require_whole_characters(content)
        return content
    except RecursionError:
        raise DataError(f"{location}: invalid JSON: nested too deeply") from None
    except ValueError as error:  # also an integer of thousands of digits
        raise DataError(f"{location}: invalid JSON: {error}") from None


def _require_whole_characters(content: Any) -> None:
    """Raise a ValueError for half of a surrogate pair, which remains where text was cut in UTF-16.

    No output can contain it. Surrogates that stand for bytes of file names (`data_pipelines.io.text`) are accepted.
    """
    try:
        json.dumps(content, ensure_ascii=False).encode(*ENCODING)
    except UnicodeEncodeError as error:
        text = ascii(error.object[max(0, error.start - CONTEXT) : error.start + 1])
        raise ValueError(f"found half of a surrogate pair at the end of {text}, expected whole characters") from None


def read_json_lines(file: Path, *keys: str) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines that have all ``keys``; other lines, such as a crash leaves, are skipped."""
    records = []
    for line in intact_lines(file):
        try:
            record = parse_json(line, str(file))
        except DataError:
            continue
        if isinstance(record, dict) and set(keys) <= record.keys():
            records.append(record)
    return records


def json_field(entry: Any, key: str, kind: type, location: str) -> Any:
    """Return ``entry[key]``; DataError unless ``entry`` is an object and the value has type ``kind``."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise DataError(f"{location}: found {excerpt(entry)}, expected {key!r} with {JSON_TYPES[kind]}")
    return value


def excerpt(value: Any) -> str:
    """The value in at most 80 characters, for messages."""
    text = reprlib.repr(value)  # in bounded time, whatever the value's size
    return text if len(text) <= 80 else f"{text[:60]}..."
