"""Atomic writes: a reader finds either the old file or the complete new one, even after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; a block that succeeds renames it to ``file``.

    Missing parent folders are created. The temporary file keeps the suffix of ``file``, because some writers derive
    the format from it. A block that raises leaves ``file`` as it was and removes the temporary file.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.stem}.tmp{file.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)


def sync(path: Path) -> None:
    """Flush a file's or folder's data to the disk. Folders cannot be opened on Windows, where this does nothing."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: str | os.PathLike[str], content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
