"""Programs with a time limit: what may hang or crash inside C runs in one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lookupvivit

# the last line of a traceback, or of an error told in one line; torchrun puts the rank before it
ERROR = re.compile(r"(?:\[rank\d+\]: ?)?((?:[\w.]*(?:Error|Exception)|error): .+)")
ROOT = str(Path(lookupvivit.__file__).parents[1])


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: exit status, negative for a signal; None where it was killed at its time limit.
        output: standard output and error together.
        seconds: it took.
    """

    status: int | None
    output: str
    seconds: float

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object in its last line that is one; empty where there is none."""
        for line in reversed(self.output.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        return {}

    @property
    def reason(self) -> str:
        """What it said last of an error, in one line; not the launcher's report of its children."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        telling = [match[1] for match in map(ERROR.match, lines) if match and "ChildFailedError" not in match[1]]
        return (telling or lines or ["it said nothing"])[-1][:200]

    @property
    def ending(self) -> str:
        if self.status is None:
            return f"was stopped after {self.seconds:.0f} s"
        how = f"signal {signal.Signals(-self.status).name}" if self.status < 0 else f"exit status {self.status}"
        return f"ended with {how}"


def run(arguments: Sequence[str], limit: float, **environment: str) -> Outcome:
    """Run a Python program's ``arguments`` for at most ``limit`` seconds; then it and all it started are killed."""
    paths = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:  # not a pipe, which a killed program's children would hold open
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
            _kill(process)
        except BaseException:  # Ctrl-C
            _kill(process)
            raise
        output.seek(0)
        return Outcome(status, output.read().decode(errors="replace"), time.perf_counter() - start)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The program and its descendants: torchrun's workers have sessions of their own."""
    import psutil  # DeepSpeed needs it

    program = psutil.Process(process.pid)  # not waited for yet, so the number is its own
    for member in [*program.children(recursive=True), program]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
