"""A training run that is small enough for tests."""

import contextlib
import itertools
import json
import os
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file

from support.paths import ROOT

SMALL_RUN = (
    "model.overrides={width: 32, depth: 2, num_heads: 2, compressed_size: [2, 3, 3]}",
    "data.camera_motion={train_videos: 40, validation_videos: 13, frames: 8}",
    "data.frames=4",
    "data.stride=1",
    "data.workers=0",
    "optim.batch_size=8",
    "optim.max_steps=10",  # 5 steps per epoch
    "runtime.threads=1",
    "eval.clips=2",
    "eval.batch_size=5",
    "log.every=1",
    "log.attention_clips=2",
)


def free_port() -> str:
    """A port for a launcher, which this process has not returned before.

    Every worker of pytest-xdist has a range of its own, below the ports that the system gives to connections.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for number in _NUMBERS:
        port = 12000 + (worker * 2000 + number) % 20000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return str(port)
    raise AssertionError("no end")


_NUMBERS = itertools.count(os.getpid() % 1000)


def with_fault(command: list[str], fault: str) -> list[str]:
    """The command with a fault of `faults.py` in its tool."""
    tool = next(index for index, word in enumerate(command) if word.startswith(str(ROOT / "tools")))
    return [*command[:tool], str(ROOT / "tests" / "support" / "faults.py"), fault, *command[tool:]]


def log_records(run: Path, kind: str = "train") -> list[dict]:
    """The records of a run's log.jsonl of one kind, "train" or "val"."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def assert_same_weights(run: Path, other: Path, **tolerance: float) -> None:
    """Compare the published weights of two runs; bit for bit unless tolerances are given."""
    weights, others = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    assert weights.keys() == others.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], **(tolerance or {"rtol": 0, "atol": 0}))
