"""What several tests share: a small rendered data set, and the tools run as a user runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def shell():
    """Run a command to its end in the repository, standard output and error together."""

    def run(arguments: list[str], expect: int = 0, timeout: float = 300) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            arguments, cwd=ROOT, env=environment, timeout=timeout, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout[-4000:]
        return done.stdout

    return run
