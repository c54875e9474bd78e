"""Child processes with a time limit, for checks that may hang or crash in C code."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from data_pipelines.io.processes import python_command
from lookupvivit.cli.doctor.report import MAX_MESSAGE_LENGTH

# The last line of a traceback or a one-line error; torchrun prefixes the rank.
ERROR = re.compile(r"(?:\[rank\d+\]: ?)?((?:[\w.]*(?:Error|Exception)|error): .+)")


@dataclass(frozen=True)
class Outcome:
    """How a child process ended.

    Attributes:
        status: the exit status, negative for a signal; None if it was killed at its time limit.
        output: standard output and standard error together.
        seconds: its running time.
    """

    status: int | None
    output: str
    seconds: float

    @property
    def answer(self) -> dict[str, Any]:
        """The last line of the output that is a JSON object; empty if there is none."""
        for line in reversed(self.output.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        return {}

    @property
    def reason(self) -> str:
        """The last error message in the output, without the launcher's report about its children."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        matches = [match[1] for match in map(ERROR.match, lines) if match]
        errors = [message for message in matches if "ChildFailedError" not in message]
        return (errors or lines or ["no output"])[-1][:MAX_MESSAGE_LENGTH]

    @property
    def ending(self) -> str:
        """How it ended, such as "ended with exit status 1"."""
        if self.status is None:
            return f"was stopped after {self.seconds:.0f} s"
        if self.status < 0:
            return f"ended with signal {signal.Signals(-self.status).name}"
        return f"ended with exit status {self.status}"


def run(code: str, limit: float, *arguments: str) -> Outcome:
    """Run Python code with ``sys.argv[1:] = arguments``; after ``limit`` seconds, kill it and all its descendants."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:  # descendants of a killed process would keep a pipe open
        process = subprocess.Popen(
            python_command(code, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            _kill(process)
        except BaseException:  # Ctrl-C
            _kill(process)
            raise
        output.seek(0)
        return Outcome(status, output.read().decode(errors="replace"), time.perf_counter() - start)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants. A process group is not enough: torchrun's workers have their own sessions."""
    import psutil  # a dependency of DeepSpeed

    parent = psutil.Process(process.pid)  # not reaped yet, so the number cannot belong to another process
    for descendant in [*parent.children(recursive=True), parent]:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()
    process.wait()
