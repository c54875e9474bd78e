"""Child processes that do not outlive their parent and import what it would import.

``python -c`` and ``python -m`` put the current directory first on the import path. In a folder of downloads, a file
``av.py`` or ``select.py`` would then replace the library.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

SAFE_PATH = "PYTHONSAFEPATH"  # as the option -P
PACKAGE_ROOT = str(Path(__file__).parents[2])


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, even inside C code (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command line that runs ``code`` in a new interpreter.

    The import path is replaced before anything is imported. The option ``-P`` does not exist in Python 3.10.

    Args:
        code: Python statements.
        arguments: ``sys.argv[1:]`` of the new process.
    """
    folders = [folder for folder in sys.path if folder]  # "" is the current directory
    if PACKAGE_ROOT not in folders:
        folders.insert(0, PACKAGE_ROOT)
    return [sys.executable, "-c", f"import sys; sys.path[:] = {folders!a}; {code}", *arguments]


@contextmanager
def process_pool(num_processes: int, **options: Any) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of new processes; a fork would inherit torch's thread pool in an unknown state.

    Python 3.10 has no way to keep the current directory off the import path while such a process starts.

    Args:
        options: of `concurrent.futures.ProcessPoolExecutor`.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    earlier = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"  # processes start when they get work
    try:
        with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), **options) as pool:
            yield pool
    finally:
        if earlier is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = earlier
