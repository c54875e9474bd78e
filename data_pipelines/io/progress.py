"""Progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm


def progress(items: Iterable[Any] | None = None, file: TextIO | None = None, **options: Any) -> tqdm:
    """Return a tqdm bar with rate and time left; in a log file it prints one line every 30 seconds.

    Args:
        items: what to iterate over; None for a bar that is updated by hand.
        file: standard output by default. Tools that print a table to standard output use standard error.
        options: arguments of ``tqdm``.
    """
    file = file or sys.stdout
    if file.isatty():
        return tqdm(items, file=file, dynamic_ncols=True, **options)
    return tqdm(items, file=file, mininterval=30, maxinterval=60, ncols=110, **options)
