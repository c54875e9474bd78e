"""Errors in data. Each message is one line: file or parameter, what was found, what is expected."""

from __future__ import annotations

MESSAGE_LENGTH = 160


class DataError(ValueError):
    """Data or arguments that cannot be used."""


class VideoDecodeError(DataError):
    """A video file that no backend can decode."""


class MissingDataError(DataError):
    """A file or folder that does not exist."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened; the error's type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:MESSAGE_LENGTH] if lines else type(error).__name__
