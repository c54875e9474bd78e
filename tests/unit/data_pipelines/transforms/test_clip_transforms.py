"""Transforms, against torchvision, colorsys and invariants."""

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms import rand_augment as ra
from data_pipelines.transforms.clip_transforms import (
    TrainTransform,
    adjust_saturation,
    crop_views,
    random_color,
    resize_area,
    shift_hue,
)
from data_pipelines.transforms.mixup import mixup
from data_pipelines.transforms.normalization import to_model_input


def rng(seed=0):
    return np.random.default_rng(seed)


def clip_of(frames=4, height=40, width=60, seed=0):
    return torch.from_numpy(rng(seed).integers(0, 256, (frames, 3, height, width), dtype=np.uint8))


FULL = TrainTransform(
    crop=32, short_side=40, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.8, grayscale=0.1
)


@pytest.mark.parametrize(("old", "new"), [((60, 90), (40, 60)), ((40, 60), (20, 20)), ((24, 30), (36, 45))])
def test_resizing_by_area_counts_the_parts_of_cut_pixels(old, new):
    """Each pixel drawn as many small ones, so that no edge cuts any, and these averaged."""
    clip = clip_of(2, *old)
    fine = clip.double().repeat_interleave(new[0], -2).repeat_interleave(new[1], -1)
    expected = torch.nn.functional.avg_pool2d(fine, old)
    found = resize_area(clip, *new)
    assert found.dtype == torch.uint8 and (found - expected).abs().max() <= 0.5 + 1e-4
    still = torch.full((1, 3, *old), 200, dtype=torch.uint8)
    assert (resize_area(still, *new) == 200).all() and torch.equal(resize_area(clip, *old), clip)


@pytest.mark.parametrize(
    "transform",
    [
        FULL,
        TrainTransform(crop=32, short_side=40, scale_jitter=(0.9, 1.33), rand_augment=(2, 20)),
        TrainTransform(crop=32, short_side=40, rand_augment=(3, 15), rand_augment_set="image"),
        TrainTransform(32, 40, random_resized_crop=(0.1, 1), random_erasing=0.5, random_erasing_mode="zero"),
    ],
)
def test_one_draw_for_all_frames_and_from_the_given_generator_alone(transform):
    still = clip_of(1).expand(5, -1, -1, -1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for seed in range(20):
        out, _ = transform(still, 0, rng(seed))
        assert out.shape == (3, 5, 32, 32) and out.dtype == torch.uint8 and out.is_contiguous()
        assert (out == out[:, :1]).all(), "a still clip stays still"
        assert torch.equal(out, transform(still, 0, rng(seed))[0])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


def test_geometry_against_torchvision():
    """The first draws are the factors of height and width, then top and left; the rest is resize and crop."""
    clip = clip_of(height=48, width=72)
    transform = TrainTransform(crop=32, short_side=40, scale_jitter=(0.9, 1.33))
    for seed in range(10):
        draws = rng(seed)
        h, w = draws.uniform(0.9, 1.33, size=2)
        size = [int(h * 40), int(w * 60)]
        top, left = (int(draws.integers(s - 32, endpoint=True)) for s in size)
        expected = F.resize(F.resize(clip, 40, antialias=False), size, antialias=False)
        expected = F.crop(expected, top, left, 32, 32).transpose(0, 1)
        assert torch.equal(transform(clip, 0, rng(seed))[0], expected)


def test_crops_reach_every_place():
    """Pixels hold their own position, so that the crops can be read off."""
    rows, columns = torch.meshgrid(torch.arange(34), torch.arange(36), indexing="ij")
    clip = torch.stack([rows, columns, rows])[None].byte()
    transform = TrainTransform(crop=32, short_side=34)
    seen = {tuple(transform(clip, 0, rng(seed))[0][:2, 0, 0, 0].tolist()) for seed in range(300)}
    assert seen == {(top, left) for top in range(3) for left in range(5)}


def test_flip_swaps_only_the_labels_that_tell_left_from_right():
    clip = clip_of(height=32, width=32)
    transform = TrainTransform(crop=32, short_side=32, horizontal_flip=1.0, flip_labels={0: 1, 1: 0})
    for label, flipped in ((0, 1), (1, 0), (7, 7)):
        out, new = transform(clip, label, rng())
        assert new == flipped and torch.equal(out, clip.flip(-1).transpose(0, 1))
    half = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, flip_labels={0: 1, 1: 0})
    for seed in range(20):
        out, new = half(clip, 0, rng(seed))
        assert torch.equal(out, (clip.flip(-1) if new else clip).transpose(0, 1))


def test_impossible_settings():
    with pytest.raises(DataError, match=r"crop: found 224, .*201"):
        TrainTransform(crop=224, short_side=224, scale_jitter=(0.9, 1.33))
    with pytest.raises(DataError, match="rand_augment"):
        TrainTransform(crop=224, short_side=256, rand_augment=(2, 20), color_jitter=0.8)
    with pytest.raises(DataError, match=r"replaces scale_jitter \(\(0.9, 1.33\)\)"):
        TrainTransform(crop=224, short_side=256, scale_jitter=(0.9, 1.33), random_resized_crop=(0.08, 1))
    with pytest.raises(DataError, match=r"random_resized_crop: found \(0, 1\)"):
        TrainTransform(crop=224, short_side=256, random_resized_crop=(0, 1))
    with pytest.raises(DataError, match="rand_augment_set: found 'audio', must be one of video, image"):
        TrainTransform(crop=224, short_side=256, rand_augment_set="audio")
    with pytest.raises(DataError, match="random_erasing_mode: found 'const', must be pixel or zero"):
        TrainTransform(crop=224, short_side=256, random_erasing_mode="const")


def test_saturation_is_that_of_hsv():
    video = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for factor in (0.6, 1.0, 1.4):
        out = adjust_saturation(video, factor)
        for pixel, changed in zip(video[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)
            np.testing.assert_allclose(changed, expected, atol=1e-5)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.07, 0.2])
def test_hue_is_torchvisions_to_the_last_bit(shift):
    """Few levels give every tie between channels, many all sectors; both with black, greys and pure colours."""
    for levels in (3, 256):
        picture = rng(levels).integers(0, levels, (2, 3, 200, 100)) / (levels - 1)
        video = torch.from_numpy(picture).float()
        assert torch.equal(shift_hue(video, shift), F.adjust_hue(video, shift))


def test_the_order_of_the_bytes_in_memory_changes_nothing():
    clip = clip_of()
    interleaved = clip.contiguous(memory_format=torch.channels_last)
    for seed in range(10):
        assert torch.equal(FULL(clip, 0, rng(seed))[0], FULL(interleaved, 0, rng(seed))[0])


def test_color_changes_stay_in_their_ranges():
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)  # grey has no hue, saturation or contrast to change
    shifts = [int(random_color(grey, rng(seed))[0, 0, 0, 0]) - 100 for seed in range(200)]
    assert -32 <= min(shifts) < -25 and 25 < max(shifts) <= 32
    clip = clip_of()
    means = [random_color(clip, rng(seed)).float().mean() for seed in range(30)]
    assert np.std(means) > 3


def test_greyscale():
    clip = clip_of(height=32, width=32)
    out, _ = TrainTransform(crop=32, short_side=32, grayscale=1.0)(clip, 0, rng())
    assert torch.equal(out, F.rgb_to_grayscale(clip, 3).transpose(0, 1))


@pytest.mark.parametrize("size", [(48, 80), (80, 48)])
def test_test_views_against_torchvision(size):
    clip = clip_of(height=size[0], width=size[1])
    resized = F.resize(clip, 40, antialias=False)
    views = crop_views(clip, short_side=40, crop=32, num_crops=3)
    assert views.shape == (3, 3, 4, 32, 32) and views.dtype == torch.uint8
    long = max(resized.shape[-2:]) - 32
    for view, offset in zip(views, (0, (long + 1) // 2, long), strict=True):
        top, left = (4, offset) if size[1] > size[0] else (offset, 4)
        assert torch.equal(view, F.crop(resized, top, left, 32, 32).transpose(0, 1))
    assert torch.equal(crop_views(clip, 40, 32, 1)[0], views[1])


def test_model_input_lies_between_minus_one_and_one():
    video = torch.arange(256, dtype=torch.uint8)
    out = to_model_input(video)
    assert out[0] == -1 and out[255] == 1 and out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), np.arange(256) / 127.5 - 1, atol=1e-7)
    assert to_model_input(video, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_rand_augment_strengths():
    """Arguments of TensorFlow's level_to_arg at magnitudes 10 and 5, on torchvision's operations."""
    clip = clip_of()
    for strength, factor, bits, threshold, lift in ((1.0, 1.9, 4, 256, 110), (0.5, 1.0, 2, 128, 55)):
        assert torch.equal(ra._posterize(clip, strength, rng()), F.posterize(clip, bits))
        solarized = F.solarize(clip, threshold) if threshold < 256 else clip
        assert torch.equal(ra._solarize(clip, strength, rng()), solarized)
        lifted = (clip.int() + lift).clamp(max=255)
        assert torch.equal(ra._solarize_add(clip, strength, rng()).int(), torch.where(clip < 128, lifted, clip.int()))
        assert torch.equal(ra._brightness(clip, strength, rng()), F.adjust_brightness(clip, factor))
    assert torch.equal(ra._color(clip, 0.5, rng()), clip)  # factor 1 is the picture itself
    assert torch.equal(ra._posterize(clip, 2.0, rng()), clip) and torch.equal(ra._solarize(clip, 2.0, rng()), clip)


def test_rand_augment_draws_all_twelve():
    clip = clip_of()
    assert len(ra.OPERATION_SETS["video"]) == 12
    outcomes = {ra.rand_augment(clip, 1, 9, rng(seed)).sum().item() for seed in range(150)}
    assert len(outcomes) >= 12  # cutout alone has many
    cut = ra._cutout(torch.full((2, 3, 100, 100), 9, dtype=torch.uint8), 0.5, rng(1))
    assert (cut == 0).sum() <= 2 * 3 * 40 * 40 and (cut == 0).any() and ((cut == 0) | (cut == 9)).all()


def test_statistics_are_those_of_the_whole_clip():
    """A dark and a bright frame keep their difference: nothing flickers."""
    clip = torch.stack([torch.full((3, 8, 8), 50), torch.full((3, 8, 8), 150)]).byte()
    out = ra._auto_contrast(clip, 1.0, rng())
    assert (out[0] == 0).all() and (out[1] >= 254).all()  # torchvision cuts off the fraction


def test_mixup():
    video = torch.stack([torch.full((2, 2), float(i)) for i in range(4)])
    targets = torch.eye(4)
    mixed, soft = mixup(video, targets, 0.3, rng(5))
    weight = rng(5).beta(0.3, 0.3)
    torch.testing.assert_close(soft, weight * torch.eye(4) + (1 - weight) * torch.eye(4).flip(0))
    values = soft @ torch.arange(4.0)  # targets and pixels are mixed alike
    torch.testing.assert_close(mixed, values[:, None, None].expand(4, 2, 2))
    weights = [mixup(video, targets, 0.3, rng(seed))[1][0, 0].item() for seed in range(200)]
    assert min(weights) < 0.1 and max(weights) > 0.9  # not folded to the larger half
    with pytest.raises(DataError, match="uint8"):
        mixup(video.byte(), targets, 0.3, rng())
