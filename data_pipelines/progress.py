"""The progress bar of everything that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar on standard output, with rate and time left; in a log file, one line every half minute."""
    quiet = {} if sys.stdout.isatty() else {"mininterval": 30, "maxinterval": 60, "ncols": 110}
    return tqdm(items, file=sys.stdout, dynamic_ncols=not quiet, **quiet, **options)
