"""Output whose reader has ended, as in ``tool | head``: the tool ends without a message. Needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 128 + 13  # what a shell reports for a program that SIGPIPE ended


@contextmanager
def quiet_when_output_closes() -> Iterator[None]:
    """End the process with `STATUS` when its output has no reader any more; for ``main`` of a tool, as a decorator."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # at exit, Python would report the error
    except BrokenPipeError:
        exit_if_output_is_closed()
        raise  # of another pipe


def exit_if_output_is_closed() -> None:
    """Call this after a BrokenPipeError, which may also be of a pipe to another process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()  # repeats the failed write
        except BrokenPipeError:
            os._exit(STATUS)
