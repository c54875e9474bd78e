"""The pixel values that models take: [-1, 1], as the JAX parents of ViT and ViViT do."""

from __future__ import annotations

import torch
from torch import Tensor

# Channel statistics of ImageNet for pixels in [0, 1] (torchvision, timm).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(video: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map uint8 [0, 255] to ``dtype`` [-1, 1]; any shape.

    Runs on the tensor's device: copying bytes and normalising on the device moves a quarter of the data.
    """
    return (video.float() / 127.5 - 1).to(dtype)
