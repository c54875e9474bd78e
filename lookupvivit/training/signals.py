"""Signals that ask a run to stop: it saves and exits with status 75.

SIGTERM and SIGUSR1 announce the end of a scheduler's job. Ctrl-C (SIGINT) does the same while the run trains; a second
one ends it at once. Before and after training, Ctrl-C raises KeyboardInterrupt as usual.

The run checks for a signal after each step, before it validates, and again after a validation. A signal during a
validation is therefore acted on when that ends: if it takes longer than the launcher or scheduler waits (often 30 s)
before it kills the job, the run resumes from its last checkpoint and repeats the validation.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start the command again
INTERRUPTED = 130  # 128 + SIGINT, as after any Ctrl-C


class StoppedBySignal(Exception):
    """The run was asked to stop, and is saved."""


class StopRequest:
    """Records the first of these signals during a ``with`` block, for `lookupvivit.training.trainer.Trainer.run`.

    After the block, they end the process again.

    Args:
        reports: whether this process reports to the user.

    Attributes:
        name: of the signal that arrived, else "".
        saved: which step is saved.
    """

    def __init__(self, reports: bool) -> None:
        self.name, self.saved = "", "no step is saved"
        self._reports, self._was_interrupted = reports, False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._handlers[number] = signal.signal(number, self._record)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Record also SIGINT within the block."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._was_interrupted:
            self._report(f"interrupted again: {self.saved}; the same command continues from there")
            os._exit(INTERRUPTED)
        self._was_interrupted = True
        self._record(number, frame)
        self._report(
            f"interrupted: saving after this step or validation; press Ctrl-C again to end at once ({self.saved})"
        )

    def _report(self, line: str) -> None:
        if self._reports:
            os.write(2, f"\n{line}\n".encode())  # a handler may not enter Python's buffers, which may be in use
