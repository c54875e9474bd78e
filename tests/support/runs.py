"""A training run small enough for tests."""

import socket

SMALL_RUN = (
    "model.overrides={width: 32, depth: 2, num_heads: 2, compressed_size: [2, 3, 3]}",
    "data.camera_motion={train_videos: 40, validation_videos: 13, frames: 8}",
    "data.frames=4",
    "data.stride=1",
    "data.workers=0",
    "optim.batch_size=8",
    "optim.max_steps=10",
    "runtime.threads=1",
    "eval.clips=2",
    "eval.batch_size=5",
    "log.every=1",
    "log.attention_clips=2",
)


def free_port() -> str:
    """A port for a launcher, so that tests do not meet another run on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
