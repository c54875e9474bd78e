"""Folder listings and file types by suffix.

Each folder is read once, and its files (there may be a million) are not opened. Hidden files are not data: macOS, for
example, puts a file ``._clip.mp4`` of its own next to each ``clip.mp4`` that it copies.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def is_video(name: str) -> bool:
    """Whether a file name ends like a video's, in any letter case."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_image(name: str) -> bool:
    """Whether a file name ends like an image's, in any letter case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder starts with a dot."""
    return name.startswith(".")


def unit_of(name: str) -> str:
    """Return "image" for the name of an image, else "video", for messages. A folder of images is a video."""
    return "image" if is_image(name) else "video"


def sorted_entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def videos_below(folder: str | os.PathLike[str], skip: Collection[str] = ()) -> Iterator[tuple[str, str, str]]:
    """Yield the videos in ``folder``, then those in its subfolders, one level deep.

    Args:
        skip: names of subfolders to exclude.

    Yields:
        The subfolder's name ("" for ``folder`` itself), the file name without suffix, and the path.
    """
    subfolders = []
    for entry in sorted_entries(folder):
        if is_video(entry.name):  # tested first, because is_folder() costs a system call for each symbolic link
            yield "", os.path.splitext(entry.name)[0], entry.path
        elif entry.name not in skip and is_folder(entry):
            subfolders.append(entry)
    for subfolder in subfolders:
        for entry in sorted_entries(subfolder):
            if is_video(entry.name):
                yield subfolder.name, os.path.splitext(entry.name)[0], entry.path
