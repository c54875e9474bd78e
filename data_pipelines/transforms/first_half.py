"""The half of the training augmentation that loading processes do where the training device does the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # imports torchvision, which takes seconds
    from data_pipelines.transforms.train_transform import TrainTransform


@dataclass(frozen=True)
class FirstHalf:
    """Resizes, crops and flips; `second_half` changes colours and erases.

    Both together give the pixels of the whole augmentation, up to the rounding of another device.
    """

    transform: TrainTransform

    def __call__(
        self, clip: Tensor, label: int | np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, int | np.ndarray]:
        """As `TrainTransform`; ``rng`` must be given to `second_half` afterwards."""
        clip, label = self.transform.place(clip, label, rng)
        return clip.transpose(0, 1).contiguous(), label

    def second_half(self, clips: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Change the pixels of a batch, uint8 (B, 3, T, crop, crop), each clip with its own generator."""
        changed = [
            self.transform.change_pixels(clip.transpose(0, 1), rng).transpose(0, 1)
            for clip, rng in zip(clips, rngs, strict=True)
        ]
        return torch.stack(changed)
