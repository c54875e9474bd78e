"""Child processes that do not outlive their parent."""

from __future__ import annotations

import signal
import sys


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, even inside C code (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
