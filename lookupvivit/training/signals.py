"""SIGTERM and SIGUSR1, by which schedulers announce the end of a job: the run saves and exits with status 75."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start the command again


class StoppedBySignal(Exception):
    """The run was asked to stop, and is saved."""


class StopRequest:
    """Records the first of these signals; the training loop checks it between steps.

    Attributes:
        name: of the signal that arrived, else "".
    """

    def __init__(self) -> None:
        self.name = ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._record)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
