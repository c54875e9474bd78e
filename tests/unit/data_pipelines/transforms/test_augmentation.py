"""Augmentation of other recipes than ViViT's, against torchvision, Pillow and timm."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms import rand_augment as ra
from data_pipelines.transforms.clip_transforms import TrainTransform, random_erase, random_resized_crop
from data_pipelines.transforms.mixup import cutmix, mix, mixup


def rng(seed=0):
    return np.random.default_rng(seed)


def clip_of(frames=3, height=40, width=60, seed=0):
    return torch.from_numpy(rng(seed).integers(0, 256, (frames, 3, height, width), dtype=np.uint8))


@pytest.fixture
def numpy_draws(monkeypatch):
    """Has torchvision and timm draw from a NumPy generator, so that the same numbers must give the same box."""

    def use(draws):
        def uniform(tensor, low, high):
            return tensor.fill_(draws.uniform(float(low), float(high)))

        monkeypatch.setattr(torch.Tensor, "uniform_", uniform)
        monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.from_numpy(draws.integers(low, high, size)))
        monkeypatch.setattr(np.random, "randint", lambda low, high, size: draws.integers(low, high, size))

    return use


@pytest.mark.parametrize("size", [(45, 60), (60, 45), (24, 200), (200, 24)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.9, 1.0)])
def test_random_resized_crop_is_torchvisions(numpy_draws, size, area):
    """Long pictures with a large area have no box that fits, and take the centre."""
    clip, reference = clip_of(height=size[0], width=size[1]), v2.RandomResizedCrop(32, area)
    boxes = set()
    for seed in range(30):
        numpy_draws(rng(seed))
        box = reference.make_params([clip])
        boxes.add(tuple(box.values()))
        out = random_resized_crop(clip, 32, area, rng(seed))
        assert torch.equal(out, F.resized_crop(clip, **box, size=[32, 32], antialias=False))
    assert (len(boxes) == 1) == (area == (0.9, 1.0) and max(size) == 200)


def test_random_resized_crop_takes_the_picture_as_it_comes():
    """Neither short_side nor the crop's size limits it; the flip is drawn after the box."""
    clip = clip_of(height=20, width=30)
    transform = TrainTransform(crop=32, short_side=8, random_resized_crop=(0.2, 0.8), horizontal_flip=1.0)
    expected = random_resized_crop(clip, 32, (0.2, 0.8), rng(3)).flip(-1).transpose(0, 1)
    assert torch.equal(transform(clip, 0, rng(3))[0], expected)


def test_erased_boxes():
    """One box in all frames, of permitted area and aspect, anywhere; all else stays."""
    clip = torch.full((4, 3, 60, 80), 7, dtype=torch.uint8)
    areas, aspects, anywhere = [], [], torch.zeros(60, 80, dtype=torch.bool)
    for seed in range(300):
        erased = random_erase(clip, rng(seed), "zero") == 0
        assert (erased == erased[0, 0]).all()
        rows, columns = erased[0, 0].any(1), erased[0, 0].any(0)
        assert torch.equal(erased[0, 0], rows[:, None] & columns), "a box without holes"
        areas.append(erased.float().mean().item())
        aspects.append(int(columns.sum()) / int(rows.sum()))
        anywhere |= erased[0, 0]
    assert 0.015 < min(areas) < 0.03 and 0.3 < max(areas) < 0.34
    assert 0.28 < min(aspects) < 0.4 and 2.5 < max(aspects) < 3.6
    assert anywhere.any(0).all() and anywhere.any(1).all(), "up to all four borders"
    assert (clip == 7).all(), "the input stays"


def test_erased_pixels_look_like_normal_noise_before_imagenets_normalization():
    clip = torch.full((16, 3, 60, 80), 7, dtype=torch.uint8)
    box = random_erase(clip, rng(1), "zero")[0, 0] == 0
    out = random_erase(clip, rng(1))
    assert (out[..., ~box] == 7).all()
    noise = out[..., box].float() / 255  # (T, 3, pixels)
    normalized = F.normalize(noise[..., None], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert normalized.mean((0, 2, 3)).abs().max() < 0.05
    assert (normalized.std((0, 2, 3)) - 1).abs().max() < 0.1  # cut off at 0 and 255
    assert not torch.equal(noise[0], noise[1]), "new in every frame"


def test_erasing_comes_last_and_by_chance():
    clip = clip_of(height=32, width=32)
    plain = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, grayscale=0.5)
    erasing = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, grayscale=0.5, random_erasing=0.25)
    shares = [(erasing(clip, 0, rng(s))[0] != plain(clip, 0, rng(s))[0]).float().mean().item() for s in range(200)]
    assert max(shares) < 0.4, "all other draws stay the same"
    assert 0.15 < np.mean([share > 0 for share in shares]) < 0.35


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("operation", "coefficients"),
    [
        (ra._shear_x, lambda sign: (1, 0.3 * sign, 0, 0, 1, 0)),
        (ra._shear_y, lambda sign: (1, 0, 0, 0.3 * sign, 1, 0)),
        (ra._translate_x, lambda sign: (1, 0, 100 * sign, 0, 1, 0)),
        (ra._translate_y, lambda sign: (1, 0, 0, 0, 1, 100 * sign)),
        (ra._rotate, lambda sign: 30 * sign),
    ],
)
def test_geometric_operations_against_pillow(operation, coefficients, seed):
    """At magnitude 10, either way round. Coefficients lead from a place in the result to one in the picture."""
    clip = clip_of(frames=2, height=120, width=160)
    out, expected = operation(clip, 1.0, rng(seed)), []
    for sign in (-1, 1):
        frames = []
        for frame in clip:
            picture, matrix = Image.fromarray(frame.permute(1, 2, 0).numpy()), coefficients(sign)
            if isinstance(matrix, tuple):
                picture = picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=(128, 128, 128))
            else:
                picture = picture.rotate(matrix, fillcolor=(128, 128, 128))
            frames.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        expected.append(torch.stack(frames))
    assert max((out == turned).float().mean() for turned in expected) > 0.99  # rounding on the edges of pixels


def test_geometric_operations_go_either_way_and_grow():
    clip = torch.zeros(1, 3, 50, 50, dtype=torch.uint8)
    clip[..., 25, 25] = 255
    for strength, pixels in ((0.05, 5), (0.2, 20)):
        places = {ra._translate_x(clip, strength, rng(s))[0, 0, 25].argmax().item() for s in range(20)}
        assert places == {25 - pixels, 25 + pixels}
    assert torch.equal(ra._rotate(clip, 0.0, rng()), clip) and torch.equal(ra._shear_y(clip, 0.0, rng()), clip)


def test_operation_sets():
    """Sixteen for images, without doing nothing; the video set keeps its order, which the draws depend on."""
    video, image = (ra.operation_set(name) for name in ("video", "image"))
    assert len(set(image)) == 16 and len(set(image) - set(video)) == 6 and len(set(video) - set(image)) == 2
    cut = ra._cutout_grey(torch.full((2, 3, 100, 100), 9, dtype=torch.uint8), 0.5, rng(1))
    assert (cut == 128).any() and ((cut == 128) | (cut == 9)).all()
    clip = clip_of()
    for seed in range(20):
        chosen = image[rng(seed).integers(16)]
        draws = rng(seed)
        draws.integers(16)
        assert torch.equal(ra.rand_augment(clip, 1, 15, rng(seed), "image"), chosen(clip, 1.5, draws))
    with pytest.raises(DataError, match="rand_augment_set: found 'all'"):
        ra.rand_augment(clip, 1, 9, rng(), "all")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_box_is_timms(numpy_draws, dtype):
    timm = pytest.importorskip("timm.data.mixup")
    video = torch.from_numpy(rng().integers(0, 256, (4, 3, 2, 31, 45))).to(dtype)
    before, pasted = video.clone(), []
    for seed in range(40):
        mixed, soft = cutmix(video, torch.eye(4), 1.0, rng(seed))
        draws = rng(seed)
        numpy_draws(draws)
        (top, bottom, left, right), kept = timm.cutmix_bbox_and_lam((31, 45), draws.beta(1.0, 1.0))
        expected = video.clone()
        expected[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
        assert torch.equal(mixed, expected) and mixed.dtype == dtype
        torch.testing.assert_close(soft, kept * torch.eye(4) + (1 - kept) * torch.eye(4).flip(0))
        pasted.append(1 - kept)
    assert torch.equal(video, before) and min(pasted) < 0.1 and max(pasted) > 0.6


def test_cutmix_targets_are_shares_of_pixels():
    """Samples hold their own number, so that the mean pixel is the expected label."""
    video = torch.arange(5.0)[:, None, None, None, None].expand(5, 3, 2, 20, 30).clone()
    for seed in range(20):
        mixed, soft = cutmix(video, torch.eye(5), 0.5, rng(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), soft @ torch.arange(5.0))


def test_mix_draws_either_and_only_where_there_is_a_choice():
    video, targets = torch.rand(4, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.eye(4)
    pasted = 0
    for seed in range(100):
        assert torch.equal(mix(video, targets, 0.3, 0, rng(seed))[0], mixup(video, targets, 0.3, rng(seed))[0])
        assert torch.equal(mix(video, targets, 0, 0.3, rng(seed))[0], cutmix(video, targets, 0.3, rng(seed))[0])
        mixed, _ = mix(video, targets, 0.8, 1.0, rng(seed))
        pasted += bool(((mixed == video) | (mixed == video.flip(0))).all())
    assert 35 < pasted < 65
    draws = rng()
    assert mix(video, targets, 0, 0, draws) == (video, targets) and draws.random() == rng().random()
    assert mix(video.byte(), targets, 0, 1.0, rng())[0].dtype == torch.uint8
    for seed in range(10):  # whichever would be drawn
        with pytest.raises(DataError, match="uint8"):
            mix(video.byte(), targets, 0.8, 1.0, rng(seed))
