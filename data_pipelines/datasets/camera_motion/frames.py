"""Frames of a world along a camera path, and their video file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data_pipelines.datasets.camera_motion.camera_paths import OCTAVE
from data_pipelines.datasets.camera_motion.worlds import WORLD_SIZE, World
from data_pipelines.io.atomic import atomic_write
from data_pipelines.video.streams import file_url

SUPERSAMPLING = 2  # samples per frame pixel and axis
QUANTIZER = 16  # H.264 QP of every frame
FPS = 12


def render_frames(world: World, path: np.ndarray, height: int, width: int) -> np.ndarray:
    """Render a world along a camera path (T, 4): uint8 (T, height, width, 3).

    A layer is visible at half to twice its own scale, with a weight that is 1 at its own scale and 0 at both ends.
    Beyond one end it returns, unnoticed, at the other end. The contrast of the sum of both layers is constant.
    """
    x, y, log_scale, angle = torch.from_numpy(path).float().T[:, :, None, None]
    step = 1 / SUPERSAMPLING
    v, u = torch.meshgrid(
        torch.arange(height * SUPERSAMPLING) * step - (height - step) / 2,
        torch.arange(width * SUPERSAMPLING) * step - (width - step) / 2,
        indexing="ij",
    )
    u, v, cos, sin = u + x, v + y, angle.cos(), angle.sin()
    rotated = torch.stack((cos * u - sin * v, sin * u + cos * v), -1)  # (T, H, W, 2)
    frames = torch.full((1,), 0.5)
    for i, (layer, centre) in enumerate(zip(world.layers, world.centres, strict=True)):
        octaves = (log_scale / OCTAVE - i + 1) % 2 - 1  # from the layer's own scale, in [-1, 1)
        # grid_sample addresses a layer with coordinates from -1 to 1.
        scale = 2 / WORLD_SIZE * (octaves * OCTAVE).exp()[..., None]
        grid = rotated * scale + (2 / WORLD_SIZE * (centre + 0.5) - 1)
        layers = layer.expand(len(path), -1, -1, -1)
        sampled = F.grid_sample(layers, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        weight = (torch.pi / 2 * octaves)[:, None].cos()
        frames = frames + weight * (F.avg_pool2d(sampled, SUPERSAMPLING) - 0.5)
    return (frames * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write uint8 frames (T, H, W, 3) as H.264 atomically; every frame is a key frame of the same quality."""
    import av

    with atomic_write(path) as temporary, av.open(file_url(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.options = {"qp": str(QUANTIZER), "g": "1", "preset": "veryfast", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
