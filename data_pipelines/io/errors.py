"""Errors in data. Each message is one line: file or parameter, what was found, what is expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

MESSAGE_LENGTH = 160
_DECORD_PREFIX = re.compile(r"\[[\d:]+\] \S+:\d+: ")


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


@contextmanager
def decode_errors(decoder: str) -> Iterator[None]:
    """Raise every exception of the block as VideoDecodeError.

    Decoders raise any type of error on damaged files, including MemoryError.

    Args:
        decoder: start of the message.
    """
    try:
        yield
    except VideoDecodeError:
        raise
    except Exception as error:
        raise VideoDecodeError(f"{decoder}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return one line: FFmpeg's last log message in addition to its error, decord's error without time and source."""
    message = _DECORD_PREFIX.sub("", first_line(error))
    log = getattr(error, "log", None)  # of PyAV's errors: (level, source, text) or None
    if not isinstance(log, tuple):
        return message
    return f"{getattr(error, 'strerror', None) or message} ({log[1]}: {' '.join(log[2].split())})"[:MESSAGE_LENGTH]
