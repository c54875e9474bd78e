"""Videos for tests, and their frames by plain sequential decoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    frames: int = 60,
    width: int = 96,
    height: int = 64,
    bframes: int | None = None,
    rate: int | Fraction = 25,
    pixels: str = "yuv420p",
    faststart: bool = False,
) -> Path:
    """Write a video of a moving pattern, in which every frame is different.

    Args:
        options: of the codec.
        faststart: write an mp4 file's index before its frames, so that a truncated file can still be opened.
    """
    pattern = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if bframes is not None:
            stream.codec_context.max_b_frames = bframes
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, 2 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path | str) -> np.ndarray:
    """Return every frame in display order, upright: uint8 (T, H, W, 3)."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = container.decode(container.streams.best("video"))
        return np.stack([np.rot90(_to_rgb(frame), frame.rotation // 90) for frame in frames])


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """PyAV before 17 needs the frame's colour matrix and range, and another matrix of the destination."""
    colors = {"src_colorspace": int(frame.colorspace), "src_color_range": int(frame.color_range), "dst_colorspace": 5}
    return frame.to_ndarray(format="rgb24", **(colors if int(av.__version__.split(".")[0]) < 17 else {}))


def truncate(source: Path, target: Path) -> Path:
    """Write the first half of a file."""
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    return target
