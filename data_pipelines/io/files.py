"""What lies in a folder, from one listing of it: nothing is asked of the single files, which may be a million.

And texts: lines that are read, JSON that is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from data_pipelines.io.errors import DataError

VIDEOS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")


def is_video(name: str) -> bool:
    """Whether a file of this name is a video."""
    return name.lower().endswith(VIDEOS)


def listing(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def videos_below(folder: str | os.PathLike[str], skip: Collection[str] = ()) -> Iterator[tuple[str, str, str]]:
    """The videos in ``folder``, then those in each of its folders but ``skip``: (folder's name or "", stem, path)."""
    subfolders = []
    for entry in listing(folder):
        if is_video(entry.name):  # first, as is_dir() asks the disk about every link
            yield "", os.path.splitext(entry.name)[0], entry.path
        elif entry.name not in skip and entry.is_dir():
            subfolders.append(entry)
    for subfolder in subfolders:
        for entry in listing(subfolder):
            if is_video(entry.name):
                yield subfolder.name, os.path.splitext(entry.name)[0], entry.path


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text that are not blank, with their numbers from 1 on.

    Raises:
        DataError: the file is no UTF-8 text.
    """
    try:
        with open(file, encoding="utf-8-sig") as lines:
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    except UnicodeDecodeError:
        raise DataError(f"{file}: found bytes that are not UTF-8, must be a text file") from None


def digest(file: Path) -> str:
    """What a file's content is told from any other's by: 32 hexadecimal digits of BLAKE2b."""
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb") as content:
        while block := content.read(2**24):
            found.update(block)
    return found.hexdigest()
