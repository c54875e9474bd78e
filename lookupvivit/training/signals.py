"""SIGTERM and SIGUSR1, by which schedulers announce an end: save, and leave with a status that says so."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start me again


class StoppedBySignal(Exception):
    """The run saved what it had and ends because it was asked to."""


class StopRequest:
    """Remembers that one of the signals came; the training loop asks between its steps.

    Attributes:
        name: of the signal, "" while none has come.
    """

    def __init__(self) -> None:
        self.name = ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
