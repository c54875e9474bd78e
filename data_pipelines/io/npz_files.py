"""Read .npz files of any origin in bounded memory."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Arrays of zeros shrink to a thousandth, so that a small file can fill the memory. Logits and weights hardly shrink.
MAX_RATIO = 100  # of unpacked to packed bytes
FREE_BYTES = 2**28  # that may be unpacked from any file

# Raised for incomplete, corrupt and other files. AttributeError: the file holds a single array.
# RuntimeError: it is encrypted, or has features of zip that Python does not implement.
READ_ERRORS = (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open an archive of arrays for a ``with`` block, without pickles; arrays are read when they are looked up.

    Raises:
        FileNotFoundError: the file does not exist.
        READ_ERRORS: the file is no archive, or would unpack to far more than its size; also while arrays are read.
    """
    with zipfile.ZipFile(Path(path)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    limit = max(FREE_BYTES, MAX_RATIO * os.path.getsize(path))
    if unpacked > limit:
        raise ValueError(f"found {unpacked} bytes in compressed form, expected at most {limit} in a file of this size")
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays
