"""Runs Python programs in forks of a process that has already imported their libraries, saving 10 seconds per start.

Run as a program, this module is that process. It reads one task per line (JSON) from standard input and answers each
with two lines: the fork's process number at once, its exit status at the end. The modules of this project are imported
by the forks, because they read the environment.

A fork cannot show whether a program imports everything that it needs in the right order, and it has no hash seed of its
own; tests marked ``cold`` cover these.
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

# The slow imports of tools/*.py; torch's compiler is imported by DeepSpeed's optimizers.
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
    """The process that forks; it runs one program at a time."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            bufsize=0,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, arguments: list[str], environment: dict[str, str], output: Path, folder: Path) -> WarmProcess:
        """Start a program in ``folder`` with the interpreter's ``arguments``; output goes to ``output``."""
        task = {"arguments": arguments, "environment": environment, "output": str(output), "folder": str(folder)}
        self.server.stdin.write(json.dumps(task).encode() + b"\n")
        return WarmProcess(self.server)

    def close(self) -> None:
        """End the process."""
        self.server.stdin.close()
        self.server.wait()


class WarmProcess:
    """The part of `subprocess.Popen` that tests need; the leader of its own session.

    Wait for its end before the next one is started.
    """

    def __init__(self, server: subprocess.Popen) -> None:
        self.server = server
        self.pid = self._answer()
        assert self.pid > 1
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status (of a signal: negative); None while the program runs."""
        return self._check(0)

    def wait(self, timeout: float) -> int:
        """The exit status.

        Raises:
            subprocess.TimeoutExpired: the program still runs after ``timeout`` seconds.
        """
        if self._check(timeout) is None:
            raise subprocess.TimeoutExpired("a fork", timeout)
        return self.returncode

    def _check(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self.server.stdout], [], [], timeout)[0]:
            self.returncode = self._answer()
        return self.returncode

    def _answer(self) -> int:
        line = self.server.stdout.readline()
        if not line:
            raise RuntimeError(f"the forking process ended with status {self.server.wait()}")
        return int(line)


def next_task(answers: TextIO) -> dict:
    """Serve tasks; returns in the forks only, each with its task."""
    for line in sys.stdin:
        task = json.loads(line)
        process = os.fork()
        if not process:
            os.setsid()
            return task
        print(process, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)
    sys.exit()


def become(task: dict, added_by_libraries: dict[str, str]) -> None:
    """Take over the task's environment, folder, arguments and output; draw new seeds."""
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(added_by_libraries | task["environment"])
    sys.argv[:] = task["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    with open(os.devnull) as nothing, open(task["output"], "wb") as output:
        for number, file in ((0, nothing), (1, output), (2, output)):
            os.dup2(file.fileno(), number)
    for seed in (random.seed, sys.modules["numpy"].random.seed, sys.modules["torch"].seed):
        seed()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print while they are imported
    before = set(os.environ)
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):  # not every platform has all of them
            __import__(library)
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.freeze()  # a collection in a fork would copy all of its memory
    become(next_task(answers), added)
    answers.close()
    runpy.run_path(sys.argv[0], run_name="__main__")
