"""What happens to the pixels of a clip between decoder and model.

Training follows dmvr and scenic, in this order: resize the shorter side, scale jitter, random crop,
horizontal flip, colour (or RandAugment in its place), greyscale; one draw holds for all frames. A random
resized crop may replace the first three, and random erasing come last, as other recipes have them. Testing
resizes the shorter side and cuts the crops. Resizing is bilinear without antialiasing, because
`tf.image.resize`, with which the published models were trained and tested, has none; image models are tested on
pictures resized by area (big_vision, ops_image.py, get_resize_small).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.sampling import resized_size, spatial_crops
from data_pipelines.transforms.normalization import IMAGENET_MEAN, IMAGENET_STD
from data_pipelines.transforms.rand_augment import operation_set, rand_augment

BRIGHTNESS = 32 / 255  # largest shift, of the range [0, 1]
SATURATION = CONTRAST = (0.6, 1.4)
HUE = 0.2  # largest shift, of the colour circle
CROP_ASPECT = (3 / 4, 4 / 3)  # width over height
ERASED_AREA, ERASED_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)
RESIZES = ("bilinear", "area")
TINY = 1e-30  # in place of a 0 that would divide 0


@dataclass(frozen=True)
class TrainTransform:
    """Training augmentation of a whole clip (dmvr, processors.py and modalities.py; scenic, video_ops.py).

    Attributes:
        crop: side of the square output, pixels.
        short_side: shorter side after the first resize, pixels; not used by random_resized_crop.
        scale_jitter: range of the two independent factors for height and width, or None.
        random_resized_crop: range of the crop's share of the picture, in place of resize and scale_jitter; or None.
        horizontal_flip: chance of a mirrored clip.
        flip_labels: label of a mirrored clip, for classes that tell left from right; all others keep theirs.
        color_jitter: chance of changed brightness, saturation, contrast and hue.
        grayscale: chance of a clip without colour.
        rand_augment: (layers, magnitude), in place of color_jitter and grayscale; or None.
        rand_augment_set: "video" or "image", the operations that rand_augment draws from.
        random_erasing: chance of a clip with an erased box.
        random_erasing_mode: what fills the box, "pixel" for noise or "zero" for black.

    Raises:
        DataError: the crop does not fit, a range or name is wrong, or something comes together with what it replaces.
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
        if self.random_resized_crop:
            self._check_random_resized_crop(*self.random_resized_crop)
        else:
            self._check_crop()
        operation_set(self.rand_augment_set)
        _check_erasing_mode(self.random_erasing_mode)
        if self.rand_augment and (self.color_jitter or self.grayscale):
            raise DataError(
                f"rand_augment: replaces colour changes, so color_jitter ({self.color_jitter}) and grayscale "
                f"({self.grayscale}) must be 0"
            )

    def _check_random_resized_crop(self, low: float, high: float) -> None:
        if self.scale_jitter:
            raise DataError(f"random_resized_crop: replaces scale_jitter ({self.scale_jitter}), which must be None")
        if not 0 < low <= high <= 1:
            raise DataError(f"random_resized_crop: found ({low}, {high}), must be a range with 0 < low <= high <= 1")

    def _check_crop(self) -> None:
        smallest = int(self.short_side * min(1.0, *(self.scale_jitter or (1.0,))))
        if self.crop > smallest:
            raise DataError(
                f"crop: found {self.crop}, expected at most {smallest}, the shorter side after resizing to "
                f"{self.short_side} with scale_jitter {self.scale_jitter}"
            )

    def __call__(self, clip: Tensor, label: int, rng: np.random.Generator) -> tuple[Tensor, int]:
        """Augment one clip.

        Args:
            clip: uint8 (T, 3, H, W).
            label: class id.
            rng: the only source of randomness.

        Returns:
            Clip uint8 (3, T, crop, crop), contiguous, and the label, swapped if the flip changed it.
        """
        if self.random_resized_crop:
            clip = random_resized_crop(clip, self.crop, self.random_resized_crop, rng)
        else:
            clip = self._random_scale_and_crop(clip, rng)
        # Decoders interleave the colours; apart, as the result has them, what follows runs faster on them.
        clip = clip.transpose(0, 1).contiguous().transpose(0, 1)
        if rng.random() < self.horizontal_flip:
            clip, label = F.horizontal_flip(clip), self.flip_labels.get(label, label)
        if self.rand_augment:
            clip = rand_augment(clip, *self.rand_augment, rng, self.rand_augment_set)
        if rng.random() < self.color_jitter:
            clip = random_color(clip, rng)
        if rng.random() < self.grayscale:
            clip = F.rgb_to_grayscale(clip, num_output_channels=3)
        if self.random_erasing and rng.random() < self.random_erasing:
            clip = random_erase(clip, rng, self.random_erasing_mode)
        return clip.transpose(0, 1).contiguous(), label  # (3, T, crop, crop)

    def _random_scale_and_crop(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        # Two resizes, as published: one to the final size would be sharper. The first costs nothing where the
        # videos are stored with the shorter side at short_side.
        clip = resize(clip, *resized_size(*clip.shape[-2:], self.short_side))
        if self.scale_jitter:
            factors = rng.uniform(*self.scale_jitter, size=2)
            clip = resize(clip, *(int(f * side) for f, side in zip(factors, clip.shape[-2:], strict=True)))
        top, left = (int(rng.integers(side - self.crop, endpoint=True)) for side in clip.shape[-2:])
        return clip[..., top : top + self.crop, left : left + self.crop]


def crop_views(clip: Tensor, short_side: int, crop: int, num_crops: int, how: str = "bilinear") -> Tensor:
    """Test views of a clip, uint8 (T, 3, H, W) -> (num_crops, 3, T, crop, crop), as `spatial_crops` says.

    ``how`` is one of `RESIZES`.
    """
    size = resized_size(*clip.shape[-2:], short_side)
    clip = resize_area(clip, *size) if how == "area" else resize(clip, *size)
    corners = spatial_crops(*clip.shape[-2:], crop, num_crops)
    views = torch.stack([clip[..., top : top + crop, left : left + crop] for top, left in corners])  # (V, T, 3, h, w)
    return views.transpose(1, 2).contiguous()


def resize(clip: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, no antialiasing: uint8 (T, 3, H, W) -> (T, 3, height, width); untouched at that size."""
    return F.resize(clip, [height, width], antialias=False)


def resize_area(clip: Tensor, height: int, width: int) -> Tensor:
    """Every pixel the mean of the area it covers: uint8 (T, 3, H, W) -> (T, 3, height, width).

    TensorFlow's ``area``: pixels that an edge cuts count by the part inside, unlike those of torch's area mode.
    """
    video = _mean_of_rows(clip.contiguous().float(), height)
    return _mean_of_rows(video.mT.contiguous(), width).mT.round_().clamp_(0, 255).byte().contiguous()


def _mean_of_rows(video: Tensor, height: int) -> Tensor:
    """The rows of (..., H, W) averaged to ``height``, row by row of the few that each of them covers."""
    old = video.shape[-2]
    edges = torch.arange(height + 1, dtype=torch.float64) * (old / height)
    top, bottom, first = edges[:-1], edges[1:], edges[:-1].floor()
    mean = video.new_zeros(*video.shape[:-2], height, video.shape[-1])
    for row in (first + step for step in range(math.ceil(old / height) + 1)):
        share = (torch.minimum(bottom, row + 1) - torch.maximum(top, row)).clamp_(min=0) * (height / old)
        mean.addcmul_(video.index_select(-2, row.long().clamp_(max=old - 1)), share.float()[:, None])
    return mean


def random_resized_crop(clip: Tensor, size: int, area: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """Resize a random box to a square: uint8 (T, 3, H, W) -> (T, 3, size, size).

    The crop of Inception, with the steps of torchvision's RandomResizedCrop: where no box fits, the largest one of
    permitted aspect from the centre.

    Args:
        clip: RGB frames.
        size: side of the result, pixels.
        area: range of the box's share of the picture, within (0, 1].
        rng: source of the draws.
    """
    height, width = clip.shape[-2:]
    box = random_box(height, width, area, CROP_ASPECT, rng)
    if box is None:
        tall, wide = min(height, round(width / CROP_ASPECT[0])), min(width, round(height * CROP_ASPECT[1]))
        box = (height - tall) // 2, (width - wide) // 2, tall, wide
    return resize(F.crop(clip, *box), size, size)


def random_erase(clip: Tensor, rng: np.random.Generator, mode: str = "pixel") -> Tensor:
    """Overwrite one box, the same in every frame, as timm and VideoMAE do: uint8 (T, 3, H, W), same out.

    VideoMAE erases after ImageNet's normalisation, with standard normal noise, new for every frame. Bytes come
    before any normalisation here, so the noise has ImageNet's mean and deviation, and is cut off at 0 and 255.

    Args:
        clip: RGB frames; left as they are where ten draws give no box that fits.
        rng: source of the draws.
        mode: "pixel" for noise, "zero" for black.

    Raises:
        DataError: there is no such mode.
    """
    _check_erasing_mode(mode)
    box = random_box(*clip.shape[-2:], ERASED_AREA, ERASED_ASPECT, rng)
    if box is None:
        return clip
    fill = torch.zeros((), dtype=torch.uint8) if mode == "zero" else _noise((*clip.shape[:2], *box[2:]), rng)
    return F.erase(clip, *box, fill)


def _check_erasing_mode(mode: str) -> None:
    if mode not in ("pixel", "zero"):
        raise DataError(f"random_erasing_mode: found {mode!r}, must be pixel or zero")


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))  # (T, 3, h, w)
    return noise.mul_(std).add_(mean).round_().clamp_(0, 255).byte()


def random_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width, in pixels, of a random box in a picture; None if none of ten draws fits.

    Args:
        height: of the picture.
        width: of the picture.
        area: range of the box's share of the picture, drawn evenly.
        aspect: range of width over height, drawn evenly on the logarithmic scale.
        rng: source of the draws.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(*map(math.log, aspect)))
        tall, wide = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    return None


def random_color(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, saturation, contrast and hue, in this order: uint8 (T, 3, H, W), same out.

    As in dmvr's color_default_augm, brightness is a shift, saturation acts on the S of HSV, and contrast is
    about the mean of every frame and channel. Values are clipped once, before the hue, which keeps the range.
    """
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    saturation, contrast = rng.uniform(*SATURATION), rng.uniform(*CONTRAST)
    hue = rng.uniform(-HUE, HUE)
    out = torch.empty_like(clip)
    for frame, changed in zip(clip, out, strict=True):  # one frame at a time stays in the processor's cache
        video = adjust_saturation(frame.float().div_(255).add_(brightness), saturation)
        mean = video.mean((-2, -1), keepdim=True)
        video = shift_hue(video.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1), hue)
        changed.copy_(video.mul_(255).round_())
    return out


def adjust_saturation(video: Tensor, factor: float) -> Tensor:
    """Multiply the S of HSV by ``factor``, at most up to 1: float (T, 3, H, W), same out.

    With V = max(R, G, B) and S = (V - min) / V, a new S moves every channel x to V + (x - V) * S_new / S.
    """
    brightest, darkest = video.amax(-3, keepdim=True), video.amin(-3, keepdim=True)
    largest = brightest / (brightest - darkest).clamp(min=1e-6)  # 1 / S: beyond it, S would exceed 1
    return brightest + (video - brightest) * largest.clamp(0, factor)


def shift_hue(video: Tensor, shift: float) -> Tensor:
    """Turn the colour circle by ``shift`` of its round: float (..., 3, H, W) in [0, 1], same out.

    Equal to torchvision's adjust_hue in every bit and four times as fast: comparisons give 0.0 and 1.0 to
    interpolate with, because choosing with a boolean mask costs as much as thirty sums do.
    """
    red, green, blue = video.unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    saturation = spread / value.clamp(min=TINY)
    spread.clamp_(min=TINY)
    r, g, b = ((value - channel).div_(spread) for channel in (red, green, blue))
    of_green, of_red = (torch.eq(value, channel, out=torch.empty_like(value)) for channel in (green, red))
    hue = (g + 4).sub_(r).lerp_((r + 2).sub_(b), of_green).lerp_(b.sub_(g), of_red)  # sixths of a round
    hue.mul_(1 / 6).add_(1).frac_().add_(shift)
    hue.sub_(hue.floor()).mul_(6)
    sector = hue.floor()
    rising = hue.sub_(sector).mul_(saturation)
    darkest = 1 - saturation
    middle = (rising + darkest).lerp_(1 - rising, (sector * 0.5).frac_().mul_(2)).mul_(value)
    darkest.mul_(value)
    # A channel is the brightest in two sectors (at least 1 is added), the darkest in two (at least 1 is taken
    # off), and the middle one between them; the bounds do the choosing.
    red = (sector - 2.5).abs_().sub_(1.5)
    green, blue = (1.5 - (sector - centre).abs_() for centre in (1.5, 3.5))
    return torch.stack([channel.add_(middle).clamp_(darkest, value) for channel in (red, green, blue)], dim=-3)
