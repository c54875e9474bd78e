"""What several tests share: a small rendered data set, and the tools run as a user runs them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_start import WarmProcess, WarmStart

ROOT = Path(__file__).parents[1]
SMALL_RUN = (
    "model.overrides={width: 32, depth: 2, num_heads: 2, compressed_size: [2, 3, 3]}",
    "data.camera_motion={train_videos: 40, validation_videos: 13, frames: 8}",
    "data.frames=4", "data.stride=1", "data.workers=0",
    "optim.batch_size=8", "optim.max_steps=10",
    "engine.threads=1", "eval.clips=2", "eval.batch_size=5",
    "log.every=1", "log.attention_clips=2",
)  # fmt: skip


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> Path:
    """A camera_motion set of 40 + 13 videos, rendered once."""
    from data_pipelines.camera_motion import Recipe, prepare

    root = tmp_path_factory.mktemp("camera_motion") / "set"
    prepare(root, Recipe(train_videos=40, validation_videos=13, frames=8))
    return root


def free_port() -> str:
    """A port for a launcher, so that tests do not meet another run on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def command(small_set):
    """The command line of a tool on the small set; ``launcher`` is python, torchrun N or deepspeed N."""

    def build(tool: str, run: Path, *overrides: str, launcher: str = "python") -> list[str]:
        name, _, ranks = launcher.partition(" ")
        start = {
            "python": [sys.executable],
            "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", ranks],
            "deepspeed": [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", ranks,
                          "--master_port", free_port()],
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
def start(warm_start, tmp_path_factory):
    """Start a tool in the repository with Python; the process, and the file that all it prints goes to."""

    def begin(arguments: list[str]) -> tuple[WarmProcess, Path]:
        interpreter, *arguments = arguments
        assert interpreter == sys.executable and arguments[0].endswith(".py")
        output = tmp_path_factory.mktemp("output") / "told.txt"
        return warm_start.start(arguments, ROOT, surroundings(), output), output

    return begin


@pytest.fixture
def signal_when(start):
    """Signal a tool and its loading processes as soon as ``moment()`` is true; its exit status and all it printed."""

    def run(moment: Callable[[], object], arguments: list[str], number: int = signal.SIGKILL) -> tuple[int, str]:
        process, output = start(arguments)
        while not moment():
            assert process.poll() is None, f"it ended before the moment came: {output.read_text()[-4000:]}"
            time.sleep(0.001)
        os.killpg(process.pid, number)  # launchers and schedulers signal whole groups
        return process.wait(120), output.read_text()

    return run


@pytest.fixture
def shell(start):
    """Run a command to its end in the repository, standard output and error together."""

    def run(arguments: list[str], expect: int = 0, timeout: float = 300) -> str:
        if arguments[0] == sys.executable and arguments[1].endswith(".py"):
            process, output = start(arguments)
            code, told = process.wait(timeout), output.read_text()
        else:
            done = subprocess.run(
                arguments, cwd=ROOT, env=surroundings(), timeout=timeout, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            code, told = done.returncode, done.stdout
        assert code == expect, told[-4000:]
        return told

    return run


def surroundings() -> dict[str, str]:
    """The environment with this Python's programs first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
