"""JSON files whose content grows while a program runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_json

SECONDS = 10.0  # between two writes


@contextmanager
def growing_json(file: Path | None, content: Any) -> Iterator[Callable[[], None]]:
    """Save ``content`` while the ``with`` block adds results to it, so that a late failure does not lose them.

    The file is also written at the end of the block; after an error or Ctrl-C, only if there are results.

    Args:
        file: to write atomically; None writes nothing.
        content: dicts and lists that the block changes.

    Yields:
        A function to call after each result. It writes the file the first time, and then every `SECONDS`.
    """
    written: float | None = None  # time of the last write

    def save() -> None:
        nonlocal written
        if file is not None and (written is None or time.monotonic() >= written + SECONDS):
            write_json(file, content)
            written = time.monotonic()

    try:
        yield save
    except BaseException:
        if file is not None and written is not None:
            write_json(file, content)
        raise
    if file is not None:
        write_json(file, content)
