"""What a camera adds to the image, whatever the class: defocus, exposure changes, noise and black bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.datasets.camera_motion.camera_paths import log_uniform
from data_pipelines.datasets.camera_motion.recipe import Recipe

NOISE = (0.003, 0.08)  # standard deviation, of the range from black to white
EXPOSURE_CHANGES = (0.02, 0.35)  # amplitude, in natural logarithms of the gain
EXPOSURE_PERIODS = (8.0, 60.0)  # ticks
MAX_BAR = 0.14  # of the frame's height or width
MEAN, CONTRAST = 0.5, 0.15  # of videos that show details only; stronger ones would outweigh position embeddings
LEAST_CONTRAST = 0.01  # of details that are made stronger


@dataclass(frozen=True)
class Sensor:
    """Properties of a video.

    Attributes:
        defocus: share of a blurred image that is mixed in.
        gains: factor of the exposure in each frame, (T,).
        noise: standard deviation.
        bars: height of the bars above and below the image, and width of those to its left and right, in pixels.
        detail: size in pixels of the largest structures that the image keeps, an odd number; 0 keeps all.
    """

    defocus: float
    gains: np.ndarray
    noise: float
    bars: tuple[int, int]
    detail: int


def draw_sensor(height: int, width: int, recipe: Recipe, time: np.ndarray, rng: np.random.Generator) -> Sensor:
    """Draw the properties of a video. The exposure of sequences does not change."""
    shares = recipe.variation / 100 * np.array([0.3, 0.5, 0.7, 0.25])
    has_defocus, has_exposure, has_noise, has_bars = rng.random(4) < shares
    amplitude = log_uniform(rng, *EXPOSURE_CHANGES) * has_exposure * (recipe.moves == 1)
    phase = 2 * np.pi * (time / rng.uniform(*EXPOSURE_PERIODS) + rng.random())
    bar, is_horizontal = rng.uniform(0.03, MAX_BAR) * has_bars, rng.random() < 0.5
    bars = (round(bar * height), 0) if is_horizontal else (0, round(bar * width))
    return Sensor(
        defocus=rng.uniform(0.2, 1) * has_defocus,
        gains=np.exp(amplitude * np.sin(phase)),
        noise=log_uniform(rng, *NOISE) * has_noise,
        bars=bars,
        detail=recipe.detail,
    )


def expose(frames: Tensor, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Turn frames, float (T, 3, H, W) in [0, 1], into uint8 (T, H, W, 3)."""
    if sensor.detail:
        frames = _without_large_structures(frames, sensor.detail)
    if sensor.defocus:
        padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
        frames = torch.lerp(frames, F.avg_pool2d(padded, 3, stride=1), sensor.defocus)
    frames = frames * torch.from_numpy(sensor.gains).float()[:, None, None, None]
    if sensor.noise:
        frames += sensor.noise * torch.from_numpy(rng.standard_normal(tuple(frames.shape), dtype=np.float32))
    rows, columns = sensor.bars
    if rows:
        frames[:, :, :rows] = frames[:, :, -rows:] = 0
    if columns:
        frames[..., :columns] = frames[..., -columns:] = 0
    return (frames * 255).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _without_large_structures(frames: Tensor, size: int) -> Tensor:
    """Subtract the mean of a window of ``size`` pixels around each pixel, and give all videos the same contrast."""
    padded = F.pad(frames, [size // 2] * 4, mode="reflect")
    details = frames - F.avg_pool2d(padded, size, stride=1)
    return MEAN + CONTRAST * details / (details.std() + LEAST_CONTRAST)
