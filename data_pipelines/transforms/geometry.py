"""Resizing and cropping of clips.

Resizing is bilinear without antialiasing, as in `tf.image.resize`, with which the published models were trained and
tested. Image models are tested on images that were resized by area (big_vision, ops_image.py, get_resize_small).
"""

from __future__ import annotations

import math
import platform

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.sampling import resized_size, spatial_crops

RESIZE_METHODS = ("bilinear", "area")
CROP_ASPECT = (3 / 4, 4 / 3)  # width / height of a random resized crop
BOX_ATTEMPTS = 10

# Whether torch resizes uint8 with integer arithmetic on this processor, as torchvision decides it
HAS_UINT8_RESIZE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in (
    "aarch64",
    "arm64",
)

Box = tuple[int, int, int, int]  # top, left, height and width, pixels


def crop_views(clip: Tensor, short_side: int, crop: int, num_crops: int, method: str = "bilinear") -> Tensor:
    """Cut the test views of a clip: uint8 (T, 3, H, W) -> (num_crops, 3, T, crop, crop).

    Args:
        clip: RGB frames.
        short_side: shorter side after resizing, pixels.
        crop: side of the square crops, pixels, at most ``short_side``.
        num_crops: 1 or 3, see `data_pipelines.sampling.spatial_crops`.
        method: one of `RESIZE_METHODS`.
    """
    height, width = resized_size(clip.shape[-2], clip.shape[-1], short_side)
    clip = resize_area(clip, height, width) if method == "area" else resize(clip, height, width)
    corners = spatial_crops(height, width, crop, num_crops)
    views = torch.stack([clip[..., top : top + crop, left : left + crop] for top, left in corners])  # (V, T, 3, h, w)
    return views.transpose(1, 2).contiguous()


def resize(clip: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly without antialiasing: uint8 (T, 3, H, W) -> (T, 3, height, width).

    A clip that has this size already is returned as it is. The pixels are those of torchvision's `resize`, which takes
    seconds to import.
    """
    if clip.shape[-2:] == (height, width):
        return clip
    if clip.shape[0] == 1 and clip.is_contiguous(memory_format=torch.channels_last):
        # Otherwise, torch takes the only frame for a planar one and copies it.
        clip = clip.as_strided(clip.shape, (clip.numel(), *clip.stride()[1:]))
    if HAS_UINT8_RESIZE:
        return F.interpolate(clip, (height, width), mode="bilinear", align_corners=False)
    return F.interpolate(clip.float(), (height, width), mode="bilinear", align_corners=False).round_().byte()


def planar(clip: Tensor) -> Tensor:
    """Copy a clip, uint8 (T, 3, H, W), so that each channel is contiguous. Decoders interleave those of a pixel."""
    planes = torch.empty(clip.transpose(0, 1).shape, dtype=clip.dtype)
    for plane, channel in zip(planes, clip.unbind(1), strict=True):
        np.copyto(plane.numpy(), channel.numpy())  # NumPy takes less than half as long as torch
    return planes.transpose(0, 1)


def resize_area(clip: Tensor, height: int, width: int) -> Tensor:
    """Make every pixel the mean of the area that it covers: uint8 (T, 3, H, W) -> (T, 3, height, width).

    This is TensorFlow's ``area``: a pixel on the edge of the area counts by the part inside. In torch's area mode it
    counts in full.
    """
    video = _average_rows(clip.contiguous().float(), height)
    video = _average_rows(video.mT.contiguous(), width).mT
    return video.round_().clamp_(0, 255).byte().contiguous()


def _average_rows(video: Tensor, height: int) -> Tensor:
    """Average the rows of (..., H, W) to ``height`` rows, weighted by their overlap with each new row."""
    old_height = video.shape[-2]
    edges = torch.arange(height + 1, dtype=torch.float64) * (old_height / height)  # of the new rows, in old rows
    top, bottom = edges[:-1], edges[1:]
    mean = video.new_zeros(*video.shape[:-2], height, video.shape[-1])
    for offset in range(math.ceil(old_height / height) + 1):
        row = top.floor() + offset
        overlap = (torch.minimum(bottom, row + 1) - torch.maximum(top, row)).clamp_(min=0)
        weight = overlap * (height / old_height)
        mean.addcmul_(video.index_select(-2, row.long().clamp_(max=old_height - 1)), weight.float()[:, None])
    return mean


def random_scale_and_crop(
    clip: Tensor, short_side: int, crop: int, scale_jitter: tuple[float, float] | None, rng: np.random.Generator
) -> Tensor:
    """Resize, jitter the scale, and cut a random crop: uint8 (T, 3, H, W) -> (T, 3, crop, crop).

    Args:
        clip: RGB frames.
        short_side: shorter side after the first resize, pixels.
        crop: side of the crop, pixels.
        scale_jitter: range of the two independent factors of height and width, or None.
        rng: source of the draws: both factors, then top and left of the crop.
    """
    # Two resizes, as in dmvr: a single one to the final size would give sharper frames.
    clip = resize(clip, *resized_size(clip.shape[-2], clip.shape[-1], short_side))
    if scale_jitter:
        factors = rng.uniform(*scale_jitter, size=2)
        clip = resize(clip, height=int(factors[0] * clip.shape[-2]), width=int(factors[1] * clip.shape[-1]))
    top = int(rng.integers(clip.shape[-2] - crop, endpoint=True))
    left = int(rng.integers(clip.shape[-1] - crop, endpoint=True))
    return clip[..., top : top + crop, left : left + crop]


def random_resized_crop(clip: Tensor, size: int, area: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """Resize a random box to a square: uint8 (T, 3, H, W) -> (T, 3, size, size).

    This is Inception's crop, with the steps of torchvision's RandomResizedCrop. If no random box fits, the crop is the
    largest central box of permitted aspect.

    Args:
        clip: RGB frames.
        size: side of the result, pixels.
        area: range of the box's fraction of the frame's area, within (0, 1].
        rng: source of the draws.
    """
    height, width = clip.shape[-2:]
    box = random_box(height, width, area, CROP_ASPECT, rng) or _largest_central_box(height, width)
    top, left, box_height, box_width = box
    return resize(clip[..., top : top + box_height, left : left + box_width], size, size)


def _largest_central_box(height: int, width: int) -> Box:
    box_height = min(height, round(width / CROP_ASPECT[0]))
    box_width = min(width, round(height * CROP_ASPECT[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Box | None:
    """Draw a box in a frame of ``height`` x ``width`` pixels; None if `BOX_ATTEMPTS` draws do not fit.

    Args:
        area: range of the box's fraction of the frame's area, drawn uniformly.
        aspect: range of the box's width / height, drawn uniformly on a logarithmic scale.
        rng: source of the draws: area and aspect until a box fits, then its top and left.
    """
    log_aspect = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(BOX_ATTEMPTS):
        num_pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(*log_aspect))
        box_height, box_width = round(math.sqrt(num_pixels / ratio)), round(math.sqrt(num_pixels * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return None
