"""Python programs run in forks of a process that has loaded their libraries: each starts without 10 seconds of imports.

Run as a program, this is that process. It reads tasks from its standard input, a line of JSON each, and answers each
with two lines: the fork's process number at once, the exit status in the end. This project's own modules are loaded by
the forks, as they read the environment.

What a fork does not show is whether a program imports all that it needs, and in the right order; nor has it a hash seed
of its own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import runpy
import select
import subprocess
import sys
from pathlib import Path
from typing import TextIO

# What tools/*.py import from elsewhere, the slow part of it; the compiler comes with DeepSpeed's optimizers.
LIBRARIES = (
    "torch._inductor.compile_fx",
    "torchvision.transforms.v2",
    "deepspeed.runtime.zero.utils",
    "pytorchvideo.data",
    "tensorboard.compat.proto",
    "matplotlib.figure",
    "decord",
    "av",
)


class WarmStart:
    """The process that forks, and the folder it runs programs in; one program at a time."""

    def __init__(self, folder: Path) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            bufsize=0,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, arguments: list[str], environment: dict[str, str], output: Path) -> WarmProcess:
        """Start a program, all it prints going to the file ``output``. ``arguments``: those of the interpreter."""
        task = {"arguments": arguments, "environment": environment, "output": str(output)}
        self.server.stdin.write(json.dumps(task).encode() + b"\n")
        return WarmProcess(self.server)

    def close(self) -> None:
        """Let the process end."""
        self.server.stdin.close()
        self.server.wait()


class WarmProcess:
    """What tests need of `subprocess.Popen`; leads a session of its own. Look until it has ended before the next."""

    def __init__(self, server: subprocess.Popen) -> None:
        self.server = server
        self.pid = self._answer()
        assert self.pid > 1
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, a signal's as a negative number; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float) -> int:
        """The exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self._look(timeout) is None:
            raise subprocess.TimeoutExpired("a fork", timeout)
        return self.returncode

    def _look(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self.server.stdout], [], [], timeout)[0]:
            self.returncode = self._answer()
        return self.returncode

    def _answer(self) -> int:
        line = self.server.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks has ended with status {self.server.wait()}")
        return int(line)


def next_task(answers: TextIO) -> dict:
    """Serve; return in the forks only, each with its task."""
    for line in sys.stdin:
        task = json.loads(line)
        process = os.fork()
        if not process:
            os.setsid()
            return task
        print(process, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)
    sys.exit()


def become(task: dict, own: dict[str, str]) -> None:
    """Take over the task's environment, with what libraries added to it, its arguments and output, and new seeds."""
    os.environ.clear()
    os.environ.update(own | task["environment"])
    sys.argv[:] = task["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    with open(os.devnull) as nothing, open(task["output"], "wb") as output:
        for number, file in ((0, nothing), (1, output), (2, output)):
            os.dup2(file.fileno(), number)
    for seed in (random.seed, sys.modules["numpy"].random.seed, sys.modules["torch"].seed):
        seed()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries tell of themselves while they load
    before = set(os.environ)
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):  # not every platform has all of them
            __import__(library)
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.freeze()  # a collection in a fork would copy all its pages
    become(next_task(answers), added)
    answers.close()
    runpy.run_path(sys.argv[0], run_name="__main__")
