"""Check the paths that results will be written to, before the work that produces them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from data_pipelines.io.atomic import PREFIX
from data_pipelines.io.errors import DataError


class OutputPathError(DataError):
    """A path that nothing can be written to."""


def require_output_folder(folder: str | os.PathLike[str]) -> None:
    """Check that files can be written to a folder, which may not exist yet. The check leaves nothing behind.

    Raises:
        OutputPathError: the path is no folder, or the folder cannot be written to or created.
    """
    path = Path(folder)
    _require_writable(path, _absolute(path))


def require_output_file(file: str | os.PathLike[str]) -> None:
    """Check that a file can be written or replaced. The check does not change the file and leaves nothing behind.

    Raises:
        OutputPathError: the path is a folder or a device, or its folder cannot be written to or created.
    """
    path = Path(file)
    mode = _mode(path, path)
    if mode is not None and not stat.S_ISREG(mode):  # the write would replace a device or a pipe by a file
        raise OutputPathError(f"{path}: found {_kind(mode)}, expected a file")
    _require_writable(path, _absolute(path).parent, path.name)


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except FileNotFoundError:
        raise OutputPathError(f"{path}: is in the current folder, which has been deleted; change to another") from None


def _require_writable(path: Path, folder: Path, *names: str) -> None:
    """Check that ``names`` can be created in ``folder``; errors name ``path``."""
    missing = list(names)  # also the folders that would be created
    mode = _mode(folder, path)
    while mode is None:
        missing.append(folder.name)
        folder = folder.parent
        mode = _mode(folder, path)
    if not stat.S_ISDIR(mode):
        found = f"found {_kind(mode)}" if folder == path.absolute() else f"{folder} is {_kind(mode)}"
        raise OutputPathError(f"{path}: {found}, expected a folder")
    try:  # permissions do not show that a disk is read-only, or that a name is too long for it
        with TemporaryDirectory(prefix=PREFIX, dir=folder) as temporary:
            for name in missing:
                Path(temporary, name).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputPathError(f"{path}: cannot be written to {folder} ({error.strerror})") from None


def _mode(existing: Path, path: Path) -> int | None:
    """The type bits of what is at ``existing``, or of the target of a link; None if there is nothing."""
    try:
        return existing.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return existing.lstat().st_mode if existing.is_symlink() else None
    except OSError as error:
        raise OutputPathError(f"{path}: cannot be written ({error.strerror})") from None


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFREG: "a file", stat.S_IFLNK: "a link to a missing file"}
    return kinds.get(stat.S_IFMT(mode), "a device or pipe")
