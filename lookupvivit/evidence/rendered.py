"""Clips of a still camera from the camera_motion renderer, which exist in memory only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import numpy as np
from torch import Tensor

from data_pipelines.datasets.camera_motion import Recipe
from data_pipelines.datasets.camera_motion.camera_paths import TICKS_PER_SECOND
from data_pipelines.datasets.camera_motion.preparation import Clip, draw_clip
from data_pipelines.datasets.camera_motion.recipe import MOTIONS
from data_pipelines.preprocess import Preprocess
from lookupvivit.errors import UserError

SEED = 2  # the pretrained camera motion model was trained with seed 0 and tested with seed 1
SPLIT = "validation"  # photographs that no training video shows
NOISE = 2**31  # (SEED, index, NOISE): the noise of a clip's frames
STILL = [motion.name for motion in MOTIONS].index("Standing still")


def still_clips(preprocess: Preprocess) -> Iterator[tuple[int, Clip]]:
    """Yield the index and the content of clips of the full variety, without end, at the model's frame rate and size.

    Raises:
        UserError: the renderer has no such size or frame rate.
    """
    sampling = preprocess.sampling
    fps = round((sampling.target_fps or TICKS_PER_SECOND) / sampling.stride)
    if preprocess.short_side % 2 or fps < 1:
        raise UserError(
            f"preprocessing: found short_side {preprocess.short_side} and {fps} frames per second, expected an even "
            "number of pixels and at least 1 frame per second"
        )
    ticks = math.ceil(sampling.frames * TICKS_PER_SECOND / fps)  # at least as many frames as a clip has
    recipe = Recipe(1, 1, SEED, frames=ticks, short_side=preprocess.short_side, min_fps=fps, max_fps=fps, variation=100)
    for index in count():
        yield index, draw_clip(recipe, SPLIT, STILL, recipe.rng(SPLIT, index))


def render(clip: Clip, index: int, preprocess: Preprocess) -> Tensor:
    """The frames of a clip as the model sees them, uint8 (3, T, crop, crop). The noise depends on ``index`` alone."""
    frames = clip.frames(np.random.default_rng((SEED, index, NOISE)))
    return preprocess.crop_frames(frames[: preprocess.sampling.frames]).transpose(0, 1)
