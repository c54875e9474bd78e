"""Ranks end together: one that fails reports it to the others, which may wait for it in a collective."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, NoReturn

POLL_SECONDS = 1.0
GRACE_SECONDS = 5.0  # in which a rank can end with its own message
FAILED_RANK = "failed_rank"  # key in the store
DIVERGED_STATUS = 3  # exit status of a training whose loss or gradients are not finite


class FailureWatch:
    """Ends this process when another rank has failed, or when rank 0, which has the store, is gone.

    gloo notices when the process of another rank ends; NCCL waits for its timeout.

    Args:
        store: the key-value store of all ranks.
        rank: of this process.
    """

    def __init__(self, store: Any, rank: int) -> None:
        self._store, self._rank = store.clone(), rank  # a connection of its own: requests on one wait for each other
        self._stopped = threading.Event()
        sys.excepthook = self._report_exception
        threading.Thread(target=self._watch, daemon=True).start()

    def report(self) -> None:
        """Let the other ranks know that this one has failed."""
        # In a thread, because the other side may not answer.
        reporting = threading.Thread(target=self._set_failed, daemon=True)
        reporting.start()
        reporting.join(GRACE_SECONDS)

    def stop(self) -> None:
        """From now on, ranks may end one by one."""
        self._stopped.set()
        sys.excepthook = sys.__excepthook__

    def _set_failed(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(FAILED_RANK, str(self._rank))

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            reason = self._find_failure()
            if reason and not self._stopped.wait(GRACE_SECONDS):
                print(f"error (rank {self._rank}): ended because {reason}", file=sys.stderr)
                end_process(1)

    def _find_failure(self) -> str | None:
        try:
            if self._store.check([FAILED_RANK]):
                return f"rank {self._store.get(FAILED_RANK).decode()} failed"
        except RuntimeError:
            return "rank 0 or its launcher cannot be reached"
        return None

    def _report_exception(
        self, kind: type[BaseException], error: BaseException, location: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, location)
        self.report()
        end_process(1)


def end_process(status: int) -> NoReturn:
    """End this process at once, its child processes too.

    A clean exit could be blocked by child processes, by collectives of other ranks, or by gloo: its threads may release
    Python objects after a collective has returned, and abort the process if the interpreter is finalised meanwhile.
    """
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it
            stream.flush()
    os._exit(status)
