"""Videos that the tests make, and their frames by plain sequential decoding."""

import av
import numpy as np


def encode(
    path, codec="libx264", options=None, frames=60, width=96, height=64, bframes=None, rate=25, pixels="yuv420p"
):
    """A moving pattern in which every frame is different."""
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if bframes is not None:
            stream.codec_context.max_b_frames = bframes
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path):
    """Every frame in display order, upright: uint8 (T, H, W, 3)."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = container.decode(container.streams.best("video"))
        return np.stack([np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in frames])
