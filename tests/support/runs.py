"""A training run that is small enough for tests."""

import json
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file

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
    """A port for a launcher, so that tests do not meet other runs on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


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
