"""Colour changes, against colorsys and torchvision."""

import colorsys

import numpy as np
import pytest
import torch
from support.clips import random_clip, rng
from torchvision.transforms.v2 import functional as F

from data_pipelines.transforms.color import adjust_saturation, random_color, shift_hue


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_saturation_scales_the_s_of_hsv(factor):
    video = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    changed = adjust_saturation(video, factor)
    for pixel, changed_pixel in zip(video[0].flatten(1).T.tolist(), changed[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)
        np.testing.assert_allclose(changed_pixel, expected, atol=1e-5)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.07, 0.2])
@pytest.mark.parametrize("levels", [3, 256], ids=["every tie between channels", "every sector of the hue circle"])
def test_hue_is_torchvisions(shift, levels):
    pixels = rng(levels).integers(0, levels, (2, 3, 200, 100)) / (levels - 1)
    video = torch.from_numpy(pixels).float()
    torch.testing.assert_close(shift_hue(video, shift), F.adjust_hue(video, shift), rtol=0, atol=5e-6)


def test_a_grey_clip_shows_the_brightness_shift_alone():
    """Grey has no hue or saturation, and a constant frame has no contrast."""
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    shifts = [int(random_color(grey, rng(seed))[0, 0, 0, 0]) - 100 for seed in range(200)]
    assert -32 <= min(shifts) < -25 and 25 < max(shifts) <= 32


def test_contrast_scales_the_distance_from_the_mean():
    clip = torch.cat([torch.full((1, 3, 4, 8), 108), torch.full((1, 3, 4, 8), 148)], dim=2).byte()  # mean 128, grey
    scales = []
    for seed in range(200):
        out = random_color(clip, rng(seed)).float()
        scales.append(float(out[0, 0, -1, 0] - out[0, 0, 0, 0]) / 40)
    assert 0.57 < min(scales) < 0.65 and 1.35 < max(scales) < 1.43


def test_all_frames_change_alike():
    clip = random_clip(frames=1).expand(3, -1, -1, -1)
    changed = random_color(clip, rng(0))
    assert torch.equal(changed, changed[:1].expand(3, -1, -1, -1)) and not torch.equal(changed, clip)
