"""Names and lines of text whose bytes may not be UTF-8.

File names are bytes on most systems, and some are in older encodings. Python decodes them with "surrogateescape": each
byte that is not UTF-8 becomes a lone surrogate, so that the name still opens the file. Lists of files and classes are
read and written in the same way; JSON and YAML contain the escapes of the surrogates. Whatever is shown (terminals,
figures, TensorBoard) or becomes a new file name is made `printable` first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from data_pipelines.io.errors import DataError

ENCODING = ("utf-8", "surrogateescape")
MAX_NAME_BYTES = 180  # of `output_name`; file systems permit 255, and endings follow
DIGEST_LENGTH = 8
MAX_MESSAGE = 10_000  # characters; a path has at most 4096
MAX_LINE = 2**20  # characters; a caption file has one entry per line


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not blank, each with its number, counted from 1.

    Raises:
        DataError: as `text_lines`.
    """
    return ((number, line) for number, line in enumerate(text_lines(file), start=1) if line.strip())


def text_lines(file: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a text file with their ends.

    Args:
        newline: as in `open`.

    Raises:
        DataError: the file is not text (binary, UTF-16, a pipe), or a line has more than `MAX_LINE` characters.
    """
    require_regular(file)
    with open(file, encoding="utf-8-sig", errors=ENCODING[1], newline=newline) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), ""), start=1):
            if len(line) == MAX_LINE and not line.endswith("\n"):
                raise DataError(f"{file}:{number}: found more than {MAX_LINE} characters, expected a text file")
            if "\0" in line:
                raise DataError(f"{file}:{number}: found a zero byte, expected a text file in UTF-8")
            yield line


def intact_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a file that a program writes line by line, without what a crash left; none without the file.

    That is a last line without its end, and lines with zero bytes: after a power failure, some file systems return
    these in place of what had not reached the disk.
    """
    if not file.is_file():
        return
    with open(file, encoding="utf-8-sig", errors=ENCODING[1], newline="\n") as lines:
        for line in iter(lambda: lines.readline(MAX_LINE), ""):
            if line.endswith("\n") and "\0" not in line:
                yield line.rstrip("\r\n")


def require_regular(file: Path, max_bytes: int | None = None) -> None:
    """Refuse pipes and devices, which may have no end; other problems are found when the file is opened.

    Raises:
        DataError: the file is neither a regular file nor a folder, or has more than ``max_bytes``.
    """
    if file.exists() and not file.is_file() and not file.is_dir():
        raise DataError(f"{file}: found a pipe or a device, expected a regular file")
    if max_bytes is not None and (num_bytes := file.stat().st_size) > max_bytes:
        raise DataError(f"{file}: found {num_bytes} bytes, expected at most {max_bytes}")


def read_names(file: Path) -> tuple[str, ...]:
    """Read a file with one name per line.

    Raises:
        DataError: the file has no names, or one of them twice.
    """
    names: dict[str, int] = {}
    for number, line in numbered_lines(file):
        name = line.strip()
        if name in names:
            raise DataError(f"{file}:{number}: found {name!r} as on line {names[name]}, expected different names")
        names[name] = number
    if not names:
        raise DataError(f"{file}: found no names, expected one per line")
    return tuple(names)


def printable(text: str) -> str:
    """Replace what is not text by escapes such as ``\\xe4`` or ``\\u2028``; spaces and line feeds stay."""
    text = text.encode(*ENCODING).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() or char in "\n\u00a0" else ascii(char)[1:-1] for char in text)


def one_line(text: object) -> str:
    """`printable` on a single line, for messages and lists: names may contain line feeds, or have a million letters."""
    line = printable(str(text)).replace("\n", "\\n")
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}... ({len(line)} characters)"


def output_name(name: str) -> str:
    """A relative path for an output that is named after an input: `printable`, with parts of bounded length."""
    return str(PurePath(*map(_shorten, PurePath(printable(name)).parts)))


def _shorten(part: str) -> str:
    """Replace the middle of a long file name by a hash, which keeps different names different."""
    content = part.encode()
    if len(content) <= MAX_NAME_BYTES:
        return part
    digest = hashlib.blake2b(content, digest_size=DIGEST_LENGTH // 2).hexdigest()
    kept = content[: MAX_NAME_BYTES - DIGEST_LENGTH - 1].decode("utf-8", "ignore")
    return f"{kept}~{digest}"


def escape_surrogates(text: str) -> str:
    """Write lone surrogates as the escapes of JSON strings, ``\\udce4``."""
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
