"""Resizing and cropping, against torchvision, averages of finer grids and images of coordinates."""

import numpy as np
import pytest
import torch
from support.clips import draw_from_numpy, random_clip, rng
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from data_pipelines.transforms import geometry
from data_pipelines.transforms.geometry import (
    crop_views,
    random_box,
    random_resized_crop,
    random_scale_and_crop,
    resize_area,
)

# Resizing by area


@pytest.mark.parametrize(("old", "new"), [((60, 90), (40, 60)), ((40, 60), (20, 20)), ((24, 30), (36, 45))])
def test_area_resizing_weights_cut_pixels_by_the_part_inside(old, new):
    """The oracle repeats each pixel until no edge of the result cuts one, and averages these."""
    clip = random_clip(2, *old)
    fine = clip.double().repeat_interleave(new[0], -2).repeat_interleave(new[1], -1)
    expected = torch.nn.functional.avg_pool2d(fine, old)
    resized = resize_area(clip, *new)
    assert resized.dtype == torch.uint8
    assert (resized - expected).abs().max() <= 0.5 + 1e-4


def test_area_resizing_keeps_constant_frames_and_frames_of_the_same_size():
    constant = torch.full((1, 3, 60, 90), 200, dtype=torch.uint8)
    assert (resize_area(constant, 40, 61) == 200).all()
    clip = random_clip()
    assert torch.equal(resize_area(clip, 40, 60), clip)


# Bilinear resizing


@pytest.mark.parametrize("native", [True, False], ids=["uint8", "float32"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_pixels_are_those_of_torchvision(monkeypatch, native, frames, channels_last):
    """On processors with and without resizing of uint8 in torch, for the layouts of decoders and of planar clips."""
    monkeypatch.setattr(geometry, "HAS_UINT8_RESIZE", native)
    monkeypatch.setattr(
        "torchvision.transforms.v2.functional._geometry._do_native_uint8_resize_on_cpu", lambda _: native
    )
    for seed, (height, width) in enumerate([(20, 30), (41, 33), (97, 131), (40, 60)]):
        clip = random_clip(frames, seed=seed)
        if channels_last:
            clip = clip.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert torch.equal(geometry.resize(clip, height, width), F.resize(clip, [height, width], antialias=False))


# Test views


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48)])
def test_views_equal_torchvisions_resize_and_crops(height, width):
    clip = random_clip(height=height, width=width)
    resized = F.resize(clip, 40, antialias=False)
    views = crop_views(clip, short_side=40, crop=32, num_crops=3)
    assert views.shape == (3, 3, 4, 32, 32) and views.dtype == torch.uint8
    for view, offset in zip(views, (0, 17, 34), strict=True):  # the longer side is 66
        top, left = (4, offset) if width > height else (offset, 4)
        assert torch.equal(view, F.crop(resized, top, left, 32, 32).transpose(0, 1))
    assert torch.equal(crop_views(clip, short_side=40, crop=32, num_crops=1)[0], views[1])


# Random scale and crop


def test_a_crop_of_the_resized_clip_at_any_place():
    """With equal bounds the scale is not random, and the result is one of all crops of torchvision's two resizes."""
    clip = random_clip(height=48, width=72)
    scaled = F.resize(F.resize(clip, [40, 60], antialias=False), [48, 72], antialias=False)
    windows = scaled.unfold(-2, 32, 1).unfold(-2, 32, 1)  # (T, 3, 17, 41, 32, 32)
    for seed in range(10):
        crop = random_scale_and_crop(clip, 40, 32, scale_jitter=(1.2, 1.2), rng=rng(seed))
        matches = (windows == crop[:, :, None, None]).flatten(-2).all(-1).all(0).all(0)
        assert matches.sum() == 1


def test_without_jitter_every_crop_position_occurs():
    """Pixels hold their own coordinates, so that the position can be read off."""
    rows, columns = torch.meshgrid(torch.arange(34), torch.arange(36), indexing="ij")
    clip = torch.stack([rows, columns, rows])[None].byte()
    crops = [random_scale_and_crop(clip, 34, 32, scale_jitter=None, rng=rng(seed)) for seed in range(300)]
    positions = {tuple(crop[0, :2, 0, 0].tolist()) for crop in crops}
    assert positions == {(top, left) for top in range(3) for left in range(5)}


def test_scale_jitter_is_independent_for_height_and_width():
    """Pixels hold their own coordinates. Resizing keeps the ramp linear, and its slope gives the scale."""
    side, short_side, crop = 250, 200, 160
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    clip = torch.stack([rows, columns, rows])[None].byte()
    scales, starts, ends = [], [], []
    for seed in range(200):
        out = random_scale_and_crop(clip, short_side, crop, scale_jitter=(0.9, 1.33), rng=rng(seed))[0].float()
        span = torch.stack([out[0, -1, 0] - out[0, 0, 0], out[1, 0, -1] - out[1, 0, 0]])  # of the ramp, within the crop
        scales.append(((crop - 1) * side / short_side / span).numpy())
        starts.append([out[0, 0, 0], out[1, 0, 0]])
        ends.append([out[0, -1, 0], out[1, 0, -1]])
    scales = np.array(scales)
    assert 0.88 < scales.min() < 0.93 and 1.29 < scales.max() < 1.36
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.2
    assert (np.min(starts, axis=0) <= 2).all() and (np.max(ends, axis=0) >= side - 3).all(), "crops reach the borders"


# Random resized crop


@pytest.mark.parametrize(("height", "width"), [(45, 60), (60, 45), (24, 200), (200, 24)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.9, 1.0)])
def test_random_resized_crop_equals_torchvisions_for_the_same_draws(monkeypatch, height, width, area):
    clip, reference = random_clip(height=height, width=width), v2.RandomResizedCrop(32, area)
    boxes = set()
    for seed in range(30):
        with monkeypatch.context() as patch:
            draw_from_numpy(patch, rng(seed))
            box = reference.make_params([clip])
        boxes.add(tuple(box.values()))
        expected = F.resized_crop(clip, **box, size=[32, 32], antialias=False)
        assert torch.equal(random_resized_crop(clip, 32, area, rng(seed)), expected)
    never_fits = area == (0.9, 1.0) and max(height, width) == 200
    assert (len(boxes) == 1) == never_fits


def test_boxes_have_the_requested_area_and_aspect():
    boxes = [random_box(600, 800, (0.1, 0.3), (0.5, 2.0), rng(seed)) for seed in range(200)]
    areas = [height * width / (600 * 800) for *_, height, width in boxes]
    aspects = [width / height for *_, height, width in boxes]
    assert 0.099 < min(areas) < 0.12 and 0.28 < max(areas) < 0.301
    assert 0.49 < min(aspects) < 0.55 and 1.8 < max(aspects) < 2.02
    assert all(top + height <= 600 and left + width <= 800 for top, left, height, width in boxes)
    assert abs(np.mean(np.log(aspects))) < 0.1, "wide and tall boxes are equally likely"


def test_no_box_fits_if_the_area_needs_another_aspect():
    assert random_box(10, 1000, (0.9, 1.0), (0.9, 1.1), rng()) is None
