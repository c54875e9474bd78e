"""Pixel values that models take: [-1, 1], as in the JAX reference implementations of ViT and ViViT."""

from __future__ import annotations

import torch
from torch import Tensor

# Channel statistics of ImageNet for pixels in [0, 1] (torchvision, timm).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_model_input(
    video: Tensor, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Move uint8 pixels to ``device`` and map them to [-1, 1]. Training and inference feed every model through it.

    The bytes are copied first and normalised on the device, which moves a quarter of the data.

    Args:
        video: uint8, any shape.
        device: by default the tensor's own.
        dtype: floating point type of the result.
    """
    if device is not None:
        video = video.to(device, non_blocking=True)
    return (video.float() / 127.5 - 1).to(dtype)
