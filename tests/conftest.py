"""Fixtures of several tests: a small rendered dataset, and tools started by their command lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from support.paths import ROOT
from support.runs import SMALL_RUN, free_port
from support.warm_start import WarmProcess, WarmStart

# Two tests share the machine, so the time of an example means nothing. The examples are the same in every run.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> Path:
    """A camera_motion dataset of 40 + 13 videos, rendered once."""
    from data_pipelines.datasets.camera_motion import Recipe, prepare

    root = tmp_path_factory.mktemp("camera_motion") / "set"
    prepare(root, Recipe(train_videos=40, validation_videos=13, frames=8))
    return root


@pytest.fixture(scope="module")
def two_threads():
    """Let torch use two threads, although the suite gives each process one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(small_set):
    """Build the command line of a tool on the small dataset; ``launcher`` is python, torchrun N or deepspeed N."""

    def build(tool: str, run: Path, *overrides: str, launcher: str = "python") -> list[str]:
        name, _, ranks = launcher.partition(" ")
        deepspeed = str(Path(sys.executable).with_name("deepspeed"))
        start = {
            "python": [sys.executable],
            "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", ranks],
            "deepspeed": [deepspeed, "--num_accelerators", ranks, "--master_port", free_port()],
        }[name]
        settings = (*SMALL_RUN, f"data.root={small_set}", f"output_dir={run}", *overrides)
        return [*start, str(ROOT / "tools" / tool), "--cfg", str(ROOT / "configs" / "camera_motion.yaml"), *settings]

    return build


@pytest.fixture(scope="session")
def warm_start():
    server = WarmStart()
    yield server
    server.close()


@pytest.fixture
def start_tool(request, tmp_path_factory):
    """Start a command, by default in the repository; returns the process and the file that its output goes to.

    Python programs start in forks of a process with imported libraries, except in tests marked ``cold``, and except on
    machines with GPUs, which do not survive a fork.
    """
    cold = request.node.get_closest_marker("cold") or torch.cuda.is_available()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    started = []

    def start(arguments: list[str], folder: Path = ROOT) -> tuple[subprocess.Popen | WarmProcess, Path]:
        output = tmp_path_factory.mktemp("output") / "output.txt"
        if not cold and arguments[0] == sys.executable and arguments[1].endswith(".py"):
            process = request.getfixturevalue("warm_start").start(arguments[1:], environment, output, folder)
        else:
            with output.open("wb") as file:
                process = subprocess.Popen(
                    arguments,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                )
        started.append(process)
        return process, output

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


@pytest.fixture
def signal_when(start_tool):
    """Signal a tool and its loader workers as soon as ``moment()`` is true; returns exit status and output."""

    def run(moment: Callable[[], object], arguments: list[str], number: int = signal.SIGKILL) -> tuple[int, str]:
        process, output = start_tool(arguments)
        while not moment():
            assert process.poll() is None, f"it ended before the moment came: {output.read_text()[-4000:]}"
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be signalled"
        os.killpg(process.pid, number)  # launchers and schedulers signal whole process groups
        return process.wait(120), output.read_text()

    return run


@pytest.fixture
def shell(start_tool):
    """Run a command to its end, by default in the repository; returns standard output and error together."""

    def run(arguments: list[str], expect: int = 0, timeout: float = 300, folder: Path = ROOT) -> str:
        process, output = start_tool(arguments, folder)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = f"still running after {timeout} seconds"
        text = output.read_text()
        assert status == expect, text[-4000:]
        return text

    return run
