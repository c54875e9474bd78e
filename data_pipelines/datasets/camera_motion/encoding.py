"""Video files: H.264 or Motion JPEG at a random quality.

Every frame is encoded on its own. A codec that predicts frames from each other leaves fewer artifacts where nothing
moves, so that a single frame would show whether the camera stands still.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.io.atomic import atomic_write
from data_pipelines.video.streams import file_url

H264_QUALITIES = (16, 38)  # CRF
JPEG_QUALITIES = (2, 15)  # FFmpeg's qscale
JPEG_SHARE = 0.25  # of the videos


class Encoding(NamedTuple):
    """Codec, quality (lower is better) and frame rate."""

    codec: str = "libx264"
    quality: int = 16
    fps: int = 12


def draw_encoding(fps: int, variation: float, rng: np.random.Generator) -> Encoding:
    """Draw codec and quality. With a variation of 0, the quality is the best."""
    is_jpeg = rng.random() < JPEG_SHARE
    low, high = JPEG_QUALITIES if is_jpeg else H264_QUALITIES
    return Encoding("mjpeg" if is_jpeg else "libx264", low + int(rng.random() * (variation * (high - low) + 1)), fps)


def write_video(path: Path, frames: np.ndarray, encoding: Encoding = Encoding()) -> None:  # noqa: B008
    """Write uint8 frames (T, H, W, 3) as MP4, atomically; every frame is a key frame of the same quality."""
    import av

    if encoding.codec == "mjpeg":
        pixel_format, options = "yuvj420p", {"qmin": str(encoding.quality), "qmax": str(encoding.quality)}
    else:  # qcomp=1: the quality of a frame does not depend on other frames
        rates = {"crf": str(encoding.quality), "x264-params": "qcomp=1:mbtree=0:rc-lookahead=0:scenecut=0"}
        pixel_format, options = "yuv420p", {"g": "1", "preset": "veryfast", **rates}
    with atomic_write(path) as temporary, av.open(file_url(temporary), "w", format="mp4") as container:
        stream = container.add_stream(encoding.codec, rate=encoding.fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        stream.options = {**options, "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
