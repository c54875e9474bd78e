"""How a tool ends when its output has no reader any more, as in ``tool | head``, or after Ctrl-C. Needs no torch.

`lookupvivit.cli.errors` adds to the latter what has been done so far.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

STATUS = 128 + 13  # what a shell reports for a program that SIGPIPE ended
INTERRUPTED = 128 + 2  # the same for SIGINT


@contextmanager
def ends_quietly() -> Iterator[None]:
    """End the process silently, with `STATUS`, when its output has no reader; for ``main`` of a tool, as a decorator.

    Ctrl-C where the tool does not handle it, such as during imports, ends the process with one line and `INTERRUPTED`.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        except KeyboardInterrupt:
            sys.stdout.flush()
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        sys.stdout.flush()  # at exit, Python would report the error
    except BrokenPipeError:
        exit_if_output_is_closed()
        raise  # of another pipe


def exit_if_output_is_closed() -> None:
    """Call this after a BrokenPipeError, which may also be of a pipe to another process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()  # may repeat the failed write
        except BrokenPipeError:
            os._exit(STATUS)
        if _has_no_reader(stream):
            os._exit(STATUS)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose other end is closed; False where the system cannot tell."""
    with suppress(OSError, ValueError, AttributeError):  # no file descriptor; no poll on this system
        pipe = select.poll()
        pipe.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(0))
    return False
