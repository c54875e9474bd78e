"""Random erasing: boxes and what fills them."""

import pytest
import torch
from support.clips import rng
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms.erasing import random_erase


def test_boxes_have_permitted_area_and_aspect_and_lie_anywhere():
    clip = torch.full((4, 3, 60, 80), 7, dtype=torch.uint8)
    areas, aspects, ever_erased = [], [], torch.zeros(60, 80, dtype=torch.bool)
    for seed in range(300):
        erased = random_erase(clip, rng(seed), "zero") == 0
        assert (erased == erased[0, 0]).all(), "the same box in all frames and channels"
        rows, columns = erased[0, 0].any(1), erased[0, 0].any(0)
        assert torch.equal(erased[0, 0], rows[:, None] & columns), "a box without holes"
        areas.append(erased.float().mean().item())
        aspects.append(int(columns.sum()) / int(rows.sum()))
        ever_erased |= erased[0, 0]
    assert 0.015 < min(areas) < 0.03 and 0.3 < max(areas) < 0.34
    assert 0.28 < min(aspects) < 0.4 and 2.5 < max(aspects) < 3.6
    assert ever_erased.any(0).all() and ever_erased.any(1).all(), "up to all four borders"
    assert (clip == 7).all(), "the input is not changed"


def test_noise_is_standard_normal_after_imagenets_normalisation():
    clip = torch.full((16, 3, 60, 80), 7, dtype=torch.uint8)
    box = random_erase(clip, rng(1), "zero")[0, 0] == 0
    out = random_erase(clip, rng(1))
    assert (out[..., ~box] == 7).all()
    noise = out[..., box].float() / 255  # (T, 3, pixels)
    normalised = F.normalize(noise[..., None], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert normalised.mean((0, 2, 3)).abs().max() < 0.05
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 0.1  # clipped at 0 and 255
    assert not torch.equal(noise[0], noise[1]), "different in every frame"


def test_a_clip_without_a_fitting_box_is_returned_unchanged():
    clip = torch.full((2, 3, 1, 500), 7, dtype=torch.uint8)  # one row: no box of permitted aspect covers 2 %
    assert all(torch.equal(random_erase(clip, rng(seed)), clip) for seed in range(20))


def test_an_unknown_mode_is_refused():
    with pytest.raises(DataError, match="random_erasing_mode: found 'const'"):
        random_erase(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), rng(), "const")
