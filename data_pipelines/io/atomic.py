"""Atomic writes: a reader finds either the old file or the complete new one, even after a crash.

Every write goes to a temporary folder of its own next to the target. Several processes may therefore write the same
file at once (the last one to finish wins), file names may have any legal length, and a pattern such as ``*.npz`` never
matches an incomplete file. A process that is killed leaves its temporary folder ``.writing-*`` behind.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data_pipelines.io.text import ENCODING, escape_surrogates

PREFIX = ".writing-"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
DISK_ERRORS = (errno.EIO, *FULL_DISK)


@contextmanager
def atomic_write(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path with the name of ``file``; a block that succeeds moves it to ``file``.

    Missing parent folders are created. A block that raises leaves ``file`` as it was.

    Raises:
        FileNotFoundError: the block wrote nothing to the temporary path.
    """
    file = Path(file)
    with atomic_files(file.parent) as folder, full_disk_names(file):
        yield folder / file.name
        if not (folder / file.name).is_file():
            raise FileNotFoundError(f"{file}: not written")


@contextmanager
def full_disk_names(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add ``path`` to the error of a full disk: writing to an open file raises an OSError that names none."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def free_space(error: Exception | str) -> str:
    """What to add to the message of a full disk's error; empty for other errors."""
    if not (isinstance(error, OSError) and error.errno in FULL_DISK and error.filename):
        return ""
    file = Path(os.fsdecode(error.filename)).absolute()
    folder = next(path for path in file.parents if path.exists())
    return f"; {shutil.disk_usage(folder).free / 1e9:.1f} GB are free there"


@contextmanager
def atomic_files(folder: str | os.PathLike[str], prefix: str = PREFIX, last: str = "") -> Iterator[Path]:
    """Yield a temporary folder; a block that succeeds moves its files to ``folder``, in the order of their names.

    Each file appears complete. A crash while they are moved leaves only the first ones in ``folder``.

    Args:
        folder: created if necessary, with its parents.
        prefix: start of the temporary folder's name.
        last: name of a file that is moved after all others.
    """
    folder = Path(folder)
    create_folder(folder)
    with full_disk_names(folder), TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as name:
        temporary = Path(name)
        yield temporary
        files = sorted(temporary.iterdir(), key=lambda file: (file.name == last, file))
        for file in files:
            sync(file)
        for file in files:
            os.replace(file, folder / file.name)
    sync(folder)


def new_folder(folder: str | os.PathLike[str]) -> None:
    """Create an empty folder with a fixed name, for `move_folder`.

    What a killed process left under the name is removed. So is a symbolic link, which another user may have placed
    there: what it leads to is left alone.
    """
    folder = Path(folder)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
    create_folder(folder.parent)
    folder.mkdir()


def move_folder(temporary: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Rename a complete folder to ``folder``, which must not exist; both are durable when this returns.

    For folders that several processes fill, which must therefore agree on the name of the temporary folder.
    """
    temporary, folder = Path(temporary), Path(folder)
    for path in (*temporary.rglob("*"), temporary):
        sync(path)
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "exists already", str(folder))
    os.replace(temporary, folder)
    sync(folder.parent)


def move(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file or folder to ``target``, which must not exist. A folder may also move to another disk."""
    source, target = Path(source), Path(target)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, target, symlinks=True)
        for path in (*target.rglob("*"), target, target.parent):
            sync(path)
        shutil.rmtree(source)


def create_folder(folder: str | os.PathLike[str]) -> None:
    """Create a folder, with its parents, that is still there after a power failure."""
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder's list of names to the disk.

    Folders are flushed where the system supports it: Windows and some network file systems do not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno in DISK_ERRORS:
            raise


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write text atomically, in the encoding of `data_pipelines.io.text`."""
    with atomic_write(file) as temporary:
        temporary.write_bytes(text.encode(*ENCODING))


def write_json(file: str | os.PathLike[str], content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(file, escape_surrogates(json.dumps(content, indent=2, ensure_ascii=False)) + "\n")
