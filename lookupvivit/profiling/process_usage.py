"""What a process and its children use: time, CPU time and memory (Linux)."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.1


class Usage(NamedTuple):
    """What a process has used.

    Attributes:
        elapsed: seconds from its start, which includes that of Python, to its end.
        cpu: seconds of CPU time, of its children as well.
        peak: bytes of resident memory, the sum of the peaks of the process and of its children.
    """

    elapsed: float
    cpu: float
    peak: int


def measure_process(command: Sequence[str]) -> Usage:
    """Run a command to its end, without its standard output.

    Raises:
        OSError: it failed.
    """
    start, cpu_before, peaks = time.monotonic(), _cpu_of_children(), dict[int, int]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in [process.pid, *_children(process.pid)]:
                with suppress(OSError, ValueError):  # it has ended
                    peaks[pid] = max(_peak(pid), peaks.get(pid, 0))
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    if process.returncode:
        raise OSError(f"{' '.join(command[-3:])}: exit status {process.returncode}")
    return Usage(time.monotonic() - start, _cpu_of_children() - cpu_before, sum(peaks.values()))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _children(pid: int) -> list[int]:
    """Direct children of a process, of any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found
