"""Compare files by where they really are, whatever links lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from data_pipelines.io.errors import DataError

AnyPath = str | os.PathLike[str]


def real_path(path: AnyPath) -> str:
    """Return a path without symbolic links. Cheap for many files in few folders."""
    folder, name = os.path.split(os.path.abspath(path))
    if not name or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def require_not_among(outputs: Iterable[AnyPath], inputs: Iterable[AnyPath]) -> None:
    """Check that no output would replace a file that is read.

    Raises:
        DataError: one would.
    """
    by_place = {real_path(file): file for file in inputs}
    for output in outputs:
        if (source := by_place.get(real_path(output))) is not None:
            same = "" if Path(source) == Path(output) else f", the same file as {source}"
            raise DataError(f"{output}: is read{same} and would be replaced; choose another output")
