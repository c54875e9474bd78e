"""Videos to measure with: a moving texture, of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT, FPS = 320, 240, 25


def encode_texture(path: Path, frames: int, seed: int = 0) -> Path:
    """Write a texture that moves in another direction every two seconds, in H.264."""
    import av

    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    top, left, direction = 0, 0, np.zeros(2, int)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            if index % (2 * FPS) == 0:
                direction = rng.integers(-3, 4, 2)
            top, left = top + direction[0], left + direction[1]
            image = np.roll(texture, (top, left), axis=(0, 1))[:HEIGHT, :WIDTH]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return path


def repeat(source: Path, path: Path, times: int) -> Path:
    """Write the packets of a video several times, without encoding them again."""
    import av

    with av.open(str(path), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None:  # marks the end
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    target.mux(packet)
                shift += video.duration
    return path
