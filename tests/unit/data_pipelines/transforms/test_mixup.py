"""Mixup and CutMix, against timm and conservation of labels."""

import numpy as np
import pytest
import torch
from support.clips import draw_from_numpy, rng

from data_pipelines.io.errors import DataError
from data_pipelines.transforms.mixup import cutmix, mix, mixup


def numbered_samples(count, *shape):
    """Each sample holds its own number, so that the mean pixel of a mixed sample is its expected label."""
    return torch.arange(float(count)).view(-1, *[1] * len(shape)).expand(count, *shape).clone()


def test_mixup_blends_pixels_and_targets_with_the_same_weight():
    mixed, soft = mixup(numbered_samples(4, 2, 2), torch.eye(4), 0.3, rng(5))
    weight = float(soft[0, 0])
    assert 0 < weight < 1
    torch.testing.assert_close(soft, weight * torch.eye(4) + (1 - weight) * torch.eye(4).flip(0))
    for sample, partner in ((0, 3), (1, 2), (2, 1), (3, 0)):
        torch.testing.assert_close(mixed[sample], torch.full((2, 2), weight * sample + (1 - weight) * partner))


def test_mixup_weights_are_beta_distributed_and_may_be_below_one_half():
    video, targets = numbered_samples(2, 1), torch.eye(2)
    weights = np.array([mixup(video, targets, 0.3, rng(seed))[1][0, 0].item() for seed in range(1000)])
    assert abs(weights.mean() - 1 / 2) < 0.05
    assert abs(weights.var() - 1 / (4 * (2 * 0.3 + 1))) < 0.01  # variance of Beta(alpha, alpha)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_boxes_equal_timms_for_the_same_draws(monkeypatch, dtype):
    timm = pytest.importorskip("timm.data.mixup")
    video = torch.from_numpy(rng().integers(0, 256, (4, 3, 2, 31, 45))).to(dtype)
    original, pasted_areas = video.clone(), []
    for seed in range(40):
        mixed, soft = cutmix(video, torch.eye(4), 1.0, rng(seed))
        generator = rng(seed)
        with monkeypatch.context() as patch:
            draw_from_numpy(patch, generator)
            (top, bottom, left, right), kept = timm.cutmix_bbox_and_lam((31, 45), generator.beta(1.0, 1.0))
        expected = video.clone()
        expected[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
        assert torch.equal(mixed, expected) and mixed.dtype == dtype
        torch.testing.assert_close(soft, kept * torch.eye(4) + (1 - kept) * torch.eye(4).flip(0))
        pasted_areas.append(1 - kept)
    assert torch.equal(video, original), "the input is not changed"
    assert min(pasted_areas) < 0.1 and max(pasted_areas) > 0.6


def test_cutmix_targets_are_fractions_of_pixels():
    video = numbered_samples(5, 3, 2, 20, 30)
    for seed in range(20):
        mixed, soft = cutmix(video, torch.eye(5), 0.5, rng(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), soft @ torch.arange(5.0))


def test_a_single_enabled_method_is_always_used():
    video, targets = torch.rand(4, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.eye(4)
    for seed in range(20):
        assert torch.equal(mix(video, targets, 0.3, 0, rng(seed))[0], mixup(video, targets, 0.3, rng(seed))[0])
        assert torch.equal(mix(video, targets, 0, 0.3, rng(seed))[0], cutmix(video, targets, 0.3, rng(seed))[0])


def test_both_methods_are_equally_likely():
    video, targets = torch.rand(4, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.eye(4)
    num_pasted = 0
    for seed in range(100):
        mixed, _ = mix(video, targets, 0.8, 1.0, rng(seed))
        num_pasted += bool(((mixed == video) | (mixed == video.flip(0))).all())
    assert 35 < num_pasted < 65


def test_without_mixing_nothing_is_drawn():
    video, targets, generator = torch.rand(4, 3, 2, 8, 8), torch.eye(4), rng()
    assert mix(video, targets, 0, 0, generator) == (video, targets)
    assert generator.random() == rng().random()


def test_mixup_of_bytes_is_refused_whichever_method_is_drawn():
    video, targets = torch.zeros(4, 3, 2, 8, 8, dtype=torch.uint8), torch.eye(4)
    with pytest.raises(DataError, match=r"video: found torch\.uint8"):
        mixup(video, targets, 0.3, rng())
    for seed in range(10):
        with pytest.raises(DataError, match=r"video: found torch\.uint8"):
            mix(video, targets, 0.8, 1.0, rng(seed))
    assert mix(video, targets, 0, 1.0, rng())[0].dtype == torch.uint8
