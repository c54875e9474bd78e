"""The progress bar of everything that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm


def progress(items: Iterable[Any] | None = None, file: TextIO | None = None, **options: Any) -> tqdm:
    """A tqdm bar with rate and time left; in a log file, one line every half minute.

    Args:
        file: standard output by default; standard error for a tool whose output is a table to keep.
    """
    file = file or sys.stdout
    quiet = {} if file.isatty() else {"mininterval": 30, "maxinterval": 60, "ncols": 110}
    return tqdm(items, file=file, dynamic_ncols=not quiet, **quiet, **options)
