"""Clips of a still camera with an object whose pixels are known, and the same clips with the object frozen.

Rendered clips have the mask of the renderer. Recorded ones have the user's masks, or the pixels that change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data_pipelines.datasets.camera_motion.frames import render_opacity
from data_pipelines.datasets.camera_motion.preparation import Clip
from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import Preprocess, open_any
from lookupvivit.evidence.rendered import render, still_clips

MIN_COVERED, MAX_COVERED = 0.02, 0.5  # share of a clip's pixels; other clips are skipped
CHANGED = 0.1  # smallest difference from the median frame, of the range from black to white, of a pixel that moves
MASK_COLUMNS = ("path", "mask")


class ObjectClip(NamedTuple):
    """A clip and its object.

    Attributes:
        video: uint8 (3, T, crop, crop), as the model sees it.
        mask: share of each pixel that the object covers, float (T, crop, crop) in [0, 1].
    """

    video: Tensor
    mask: np.ndarray

    @property
    def is_usable(self) -> bool:
        """Whether the object is visible and is not nearly everything."""
        return MIN_COVERED <= float(self.mask.mean()) <= MAX_COVERED


class Pair(NamedTuple):
    """A clip in which the object moves, and one in which it is frozen."""

    moving: ObjectClip
    frozen: ObjectClip


def rendered_pairs(preprocess: Preprocess, number: int) -> Iterator[Pair]:
    """Yield pairs from the camera_motion renderer.

    Of its clips of a still camera, these are the ones with a moving object, without cuts, and without black bars. The
    pair shares everything, including noise and the camera's jitter. The frozen object stays where the moving one is in
    the middle of the clip.
    """
    found = 0
    for index, clip in still_clips(preprocess):
        plane = clip.scene.planes[-1]  # objects are in front of everything else
        if not plane.motion.any() or len(np.unique(clip.camera.shots)) > 1:
            continue
        clip = replace(clip, sensor=replace(clip.sensor, bars=(0, 0)))
        still = replace(plane, motion=np.zeros_like(plane.motion))
        frozen = replace(clip, scene=replace(clip.scene, planes=(*clip.scene.planes[:-1], still)))
        pair = Pair(_rendered(clip, index, preprocess), _rendered(frozen, index, preprocess))
        if pair.moving.is_usable and pair.frozen.is_usable:
            yield pair
            found += 1
        if found == number:
            return


def _rendered(clip: Clip, index: int, preprocess: Preprocess) -> ObjectClip:
    mask = render_opacity(clip.scene.planes[-1], clip.scene, clip.camera, clip.height, clip.width)
    pixels = np.repeat((mask.numpy() * 255).round().astype(np.uint8)[..., None], 3, axis=-1)  # (T, H, W, 3)
    cropped = preprocess.crop_frames(pixels[: preprocess.sampling.frames])  # as the frames are cropped
    return ObjectClip(render(clip, index, preprocess), cropped[:, 0].numpy() / 255)


def recorded_pairs(preprocess: Preprocess, file: Path) -> Iterator[Pair | None]:
    """Yield the pair of each video of a CSV file with the columns path and mask, or None if it is not usable.

    A mask is a video, or a folder of images, of the same frames as the video, black outside the object. Paths are
    relative to the file. Without a mask, the camera must stand still: the object is what `changed_pixels` finds.

    The frozen clip is the middle frame, repeated.

    Raises:
        DataError: the file has another form, or a video cannot be read.
    """
    for _, (path, mask_path) in read_csv(file, MASK_COLUMNS, strip=True):
        if mask_path:
            video, mask = _clip_and_mask(preprocess, file.parent / path, file.parent / mask_path)
        else:
            video = preprocess.clip(file.parent / path)
            mask = changed_pixels(video)
        middle = np.full(len(mask), len(mask) // 2)
        pair = Pair(ObjectClip(video, mask), ObjectClip(video[:, middle], mask[middle]))
        yield pair if pair.moving.is_usable and pair.frozen.is_usable else None


def _clip_and_mask(preprocess: Preprocess, path: Path, mask_path: Path) -> tuple[Tensor, np.ndarray]:
    """The same frames of a video, uint8 (3, T, H, W), and of its mask, [0, 1] (T, H, W)."""
    with open_any(path) as video, open_any(mask_path) as mask:
        if mask.num_frames != video.num_frames:
            found = f"{mask.num_frames} frames in {mask_path}"
            raise DataError(f"mask: found {found}, expected {video.num_frames}, as in {path}")
        indices = preprocess.sampling.test_clips(video.num_frames, video.fps, num_clips=1)
        clips = [preprocess.views_of(reader, indices, num_crops=1)[0][0] for reader in (video, mask)]
    return clips[0], clips[1][0].numpy() / 255


def changed_pixels(video: Tensor) -> np.ndarray:
    """Where a clip, uint8 (3, T, H, W), differs from its median over time: 0 or 1, (T, H, W)."""
    frames = video.numpy().astype(np.float32) / 255
    difference = np.abs(frames - np.median(frames, axis=1, keepdims=True)).max(axis=0)
    return (difference > CHANGED).astype(np.float64)
