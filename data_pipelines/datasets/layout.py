"""Locate a dataset's splits, folders and files. Used by the readers of all layouts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import is_hidden, videos_below


def require_split(split: str, splits: Iterable[str]) -> None:
    """Raise a DataError unless ``split`` is one of ``splits``."""
    if split not in splits:
        raise DataError(f"split: found {split!r}, expected one of {', '.join(splits)}")


def find_folder(root: Path, names: Iterable[str]) -> Path | None:
    """Return the first folder ``root/name`` that exists, or None."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def find_file(root: Path, folders: Sequence[str], patterns: Sequence[str], hint: str) -> Path:
    """Find the first file ``root/folder/pattern``, for glob ``patterns``; the folder "" is ``root`` itself.

    Raises:
        MissingDataError: no file matches; the message ends with ``hint``.
    """
    for folder in folders:
        for pattern in patterns:
            for file in sorted((root / folder).glob(pattern)):
                if file.is_file() and not is_hidden(file.name):
                    return file
    subfolders = ", ".join(filter(None, folders))
    raise MissingDataError(
        f"{root}: found no {' or '.join(patterns)} in this folder or its subfolders {subfolders}; {hint}"
    )


def iterate_videos(folder: Path, skip: Collection[str] = ()) -> Iterator[tuple[str, str, str]]:
    """Like `videos_below`, but yields nothing if ``folder`` does not exist."""
    if folder.is_dir():
        yield from videos_below(folder, skip)
