"""Paths of files inside a tar: ``train-000003.tar@1536+110234/n01440764/n01440764_10026.jpg``.

Such a path consists of the tar's path, the offset and the size of the file's bytes in it, and the file's name. It can
be opened and printed like any other path, from any process and without an index.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_TAR_PATH = re.compile(r"(.+\.tar)@(\d{1,18})\+(\d{1,18})/(.+)", re.DOTALL)


class TarMember(NamedTuple):
    """A file inside a tar.

    Attributes:
        tar: path of the tar.
        offset: first byte of the file's content in the tar.
        size: bytes of the content.
        name: name of the file in the tar.
    """

    tar: str
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.tar}@{self.offset}+{self.size}/{self.name}"

    def read(self) -> bytes:
        """Return the content.

        Raises:
            OSError: the tar cannot be read or is too short.
        """
        with open(self.tar, "rb", buffering=0) as file:
            content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) < self.size:
            raise OSError(f"the tar ends after {len(content)} of {self.size} bytes")
        return content


def parse_tar_path(path: str) -> TarMember | None:
    """Return the file inside a tar that ``path`` refers to, or None for an ordinary path."""
    match = _TAR_PATH.fullmatch(path) if ".tar@" in path else None
    return TarMember(match[1], int(match[2]), int(match[3]), match[4]) if match else None


def containing_file(path: str) -> str:
    """Return the file on disk that holds the content of ``path``: the tar, or ``path`` itself."""
    member = parse_tar_path(path)
    return path if member is None else member.tar


def size_and_mtime(path: str) -> tuple[int, int]:
    """Return the bytes of the content of ``path`` and the modification time (ns) of the file on disk.

    Raises:
        OSError: the file does not exist.
    """
    status, member = os.stat(containing_file(path)), parse_tar_path(path)
    return status.st_size if member is None else member.size, status.st_mtime_ns
