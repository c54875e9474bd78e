"""The training augmentation: cropping, flipping, colour, and erasing of a whole clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms.color import random_color
from data_pipelines.transforms.constraints import require_compatible
from data_pipelines.transforms.erasing import erasing_fill, random_erase
from data_pipelines.transforms.geometry import planar, random_resized_crop, random_scale_and_crop
from data_pipelines.transforms.rand_augment import operation_set, rand_augment


@dataclass(frozen=True)
class TrainTransform:
    """Training augmentation of a clip; every draw holds for all its frames.

    The steps are those of dmvr (processors.py, modalities.py) and scenic (video_ops.py), in their order: resize the
    shorter side, scale jitter, random crop, horizontal flip, colour (or RandAugment), greyscale. As in other recipes, a
    random resized crop can replace the first three, and random erasing can follow.

    Attributes:
        crop: side of the square output, pixels.
        short_side: shorter side after the first resize, pixels; unused with ``random_resized_crop``.
        scale_jitter: range of the two independent factors of height and width, or None.
        horizontal_flip: probability of a mirrored clip.
        flip_labels: label of a mirrored clip, for classes that distinguish left from right. Others keep their label.
        color_jitter: probability of changed brightness, saturation, contrast and hue.
        grayscale: probability of a clip without colour.
        rand_augment: (number of layers, magnitude), instead of color_jitter and grayscale; or None.
        rand_augment_set: "video" or "image", the operations of rand_augment.
        random_resized_crop: range of the crop's fraction of the frame's area, instead of resize and scale_jitter; or
            None.
        random_erasing: probability of an erased box.
        random_erasing_mode: "pixel" fills the box with noise, "zero" with black.

    Raises:
        DataError: the crop does not fit, a value is out of range or unknown, or an augmentation is combined with one
            that it replaces.
    """

    crop: int
    short_side: int
    scale_jitter: tuple[float, float] | None = None
    horizontal_flip: float = 0.0
    flip_labels: Mapping[int, int] = field(default_factory=dict)
    color_jitter: float = 0.0
    grayscale: float = 0.0
    rand_augment: tuple[int, float] | None = None
    rand_augment_set: str = "video"
    random_resized_crop: tuple[float, float] | None = None
    random_erasing: float = 0.0
    random_erasing_mode: str = "pixel"

    def __post_init__(self) -> None:
        require_compatible(
            self.scale_jitter, self.random_resized_crop, self.rand_augment, self.color_jitter, self.grayscale
        )
        if not self.random_resized_crop:
            self._validate_crop()
        operation_set(self.rand_augment_set)
        erasing_fill(self.random_erasing_mode)

    def _validate_crop(self) -> None:
        smallest_factor = min(1.0, *(self.scale_jitter or (1.0,)))
        smallest = int(self.short_side * smallest_factor)
        if self.crop > smallest:
            raise DataError(
                f"crop: found {self.crop}, expected at most {smallest}, the shorter side after resizing to "
                f"{self.short_side} with scale_jitter {self.scale_jitter}"
            )

    def __call__(
        self, clip: Tensor, label: int | np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, int | np.ndarray]:
        """Augment one clip.

        Args:
            clip: RGB frames, uint8 (T, 3, H, W).
            label: class id, or a value for each class, (K,).
            rng: the only source of randomness.

        Returns:
            The clip, uint8 (3, T, crop, crop), contiguous; and its label, which a flip may change.
        """
        clip, label = self.place(clip, label, rng)
        return self.change_pixels(clip, rng).transpose(0, 1).contiguous(), label

    def place(self, clip: Tensor, label: int | np.ndarray, rng: np.random.Generator) -> tuple[Tensor, int | np.ndarray]:
        """The first half: resize, crop and flip; returns uint8 (T, 3, crop, crop) and the label."""
        if self.random_resized_crop:
            clip = random_resized_crop(clip, self.crop, self.random_resized_crop, rng)
        else:
            clip = random_scale_and_crop(clip, self.short_side, self.crop, self.scale_jitter, rng)
        clip = planar(clip)  # the steps below are faster on planar channels, as in the result
        if rng.random() < self.horizontal_flip:
            clip, label = F.horizontal_flip(clip), self._flipped(label)
        return clip, label

    def change_pixels(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """The second half: colour and erasing, with the generator that `place` has used; on any device."""
        if self.rand_augment:
            layers, magnitude = self.rand_augment
            clip = rand_augment(clip, layers, magnitude, rng, self.rand_augment_set)
        if rng.random() < self.color_jitter:
            clip = random_color(clip, rng)
        if rng.random() < self.grayscale:
            clip = F.rgb_to_grayscale(clip, num_output_channels=3)
        if self.random_erasing and rng.random() < self.random_erasing:
            clip = random_erase(clip, rng, self.random_erasing_mode)
        return clip

    def _flipped(self, label: int | np.ndarray) -> int | np.ndarray:
        if isinstance(label, np.ndarray):
            return label[[self.flip_labels.get(k, k) for k in range(len(label))]]
        return self.flip_labels.get(label, label)
