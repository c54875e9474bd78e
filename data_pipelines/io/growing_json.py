"""Files whose content grows while a program runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_json, write_text

SECONDS = 10.0  # between two writes


def growing_json(file: Path | None, content: Any) -> AbstractContextManager[Callable[[], None]]:
    """As `growing_text`, for the JSON of ``content``: dicts and lists that the block changes."""
    return _growing(file, lambda path: write_json(path, content))


def growing_text(file: Path | None, content: Callable[[], str]) -> AbstractContextManager[Callable[[], None]]:
    """Save the results of a ``with`` block while it adds to them, so that a late failure does not lose them.

    The file is also written at the end of the block; after an error or Ctrl-C, only if there are results.

    Args:
        file: to write atomically; None writes nothing.
        content: returns the text with the results so far.

    Returns:
        A context manager. Its value is a function to call after each result. It writes the file the first time, and
        then every `SECONDS`.
    """
    return _growing(file, lambda path: write_text(path, content()))


@contextmanager
def _growing(file: Path | None, write: Callable[[Path], None]) -> Iterator[Callable[[], None]]:
    written: float | None = None  # time of the last write

    def save() -> None:
        nonlocal written
        if file is not None and (written is None or time.monotonic() >= written + SECONDS):
            write(file)
            written = time.monotonic()

    try:
        yield save
    except BaseException:
        if file is not None and written is not None:
            write(file)
        raise
    if file is not None:
        write(file)
