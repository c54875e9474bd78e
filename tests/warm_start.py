"""Python programs run in forks of a process that has loaded their libraries: each starts without 10 seconds of imports.

Run as a program, this is that process. It reads tasks from its standard input, a line of JSON each, and answers each
with two lines: the fork's process number at once, the exit status in the end. This project's own modules are loaded by
the forks, as they read the environment.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

# What tools/*.py import from elsewhere, the slow part of it; the compiler comes with DeepSpeed's optimizers.
LIBRARIES = ("torch._inductor.compile_fx", "torchvision.transforms.v2", "deepspeed.runtime.zero.utils",
             "pytorchvideo.data", "tensorboard.compat.proto", "matplotlib.figure", "decord", "av")  # fmt: skip


class WarmStart:
    """The process that forks; runs one program at a time."""

    def __init__(self) -> None:
        self.server = subprocess.Popen([sys.executable, __file__], bufsize=0,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip

    def start(self, arguments: list[str], folder: Path, environment: dict[str, str], output: Path) -> WarmProcess:
        """Start a program, all it prints going to the file ``output``. ``arguments``: those of the interpreter."""
        task = {"arguments": arguments, "folder": str(folder), "environment": environment, "output": str(output)}
        self.server.stdin.write(json.dumps(task).encode() + b"\n")
        return WarmProcess(self.server)

    def close(self) -> None:
        """Let the process end; a program that runs is waited for."""
        self.server.stdin.close()
        self.server.wait()


class WarmProcess:
    """What tests need of `subprocess.Popen`. Leads a session of its own."""

    def __init__(self, server: subprocess.Popen) -> None:
        self.answers = server.stdout
        self.pid = int(self.answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, a signal's as a negative number; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float) -> int:
        """The exit status; past the timeout (seconds) it is killed, its children too, and the test fails."""
        if self._look(timeout) is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._look(None)
            raise TimeoutError(f"the program took longer than {timeout} seconds")
        return self.returncode

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self.answers], [], [], timeout)[0]:
            self.returncode = int(self.answers.readline())
        return self.returncode


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


def become(task: dict) -> None:
    """Take over the task's environment, folder, arguments and output."""
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    sys.argv[:] = task["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    with open(os.devnull) as nothing, open(task["output"], "wb") as output:
        for number, file in ((0, nothing), (1, output), (2, output)):
            os.dup2(file.fileno(), number)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries tell of themselves while they load
    for library in LIBRARIES:
        __import__(library)
    gc.freeze()  # a collection in a fork would copy all its pages
    become(next_task(answers))
    answers.close()
    runpy.run_path(sys.argv[0], run_name="__main__")
