"""The training augmentation as a whole: order, probabilities, labels, randomness, and impossible settings."""

import pickle

import numpy as np
import pytest
import torch
from support.clips import random_clip, rng
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms.first_half import FirstHalf
from data_pipelines.transforms.geometry import random_resized_crop
from data_pipelines.transforms.train_transform import TrainTransform

VIVIT = TrainTransform(
    crop=32, short_side=40, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.8, grayscale=0.1
)
RECIPES = {
    "vivit": VIVIT,
    "rand_augment": TrainTransform(crop=32, short_side=40, scale_jitter=(0.9, 1.33), rand_augment=(2, 20)),
    "image": TrainTransform(crop=32, short_side=40, rand_augment=(3, 15), rand_augment_set="image"),
    "erasing": TrainTransform(
        crop=32, short_side=40, random_resized_crop=(0.1, 1), random_erasing=0.5, random_erasing_mode="zero"
    ),
}


@pytest.mark.parametrize("transform", RECIPES.values(), ids=RECIPES)
def test_every_draw_holds_for_all_frames(transform):
    still = random_clip(frames=1).expand(5, -1, -1, -1)
    for seed in range(20):
        out, _ = transform(still, 0, rng(seed))
        assert out.shape == (3, 5, 32, 32) and out.dtype == torch.uint8 and out.is_contiguous()
        assert (out == out[:, :1]).all()


@pytest.mark.parametrize("transform", RECIPES.values(), ids=RECIPES)
def test_the_given_generator_is_the_only_source_of_randomness(transform):
    clip = random_clip()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for seed in range(5):
        assert torch.equal(transform(clip, 0, rng(seed))[0], transform(clip, 0, rng(seed))[0])
    assert not torch.equal(transform(clip, 0, rng(0))[0], transform(clip, 0, rng(1))[0])
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("transform", RECIPES.values(), ids=RECIPES)
def test_two_halves_give_the_pixels_of_the_whole(transform):
    first_half, clips, rngs, expected = FirstHalf(transform), [], [], []
    for seed in range(8):
        expected.append(transform(random_clip(seed=seed), 0, rng(seed))[0])
        rngs.append(rng(seed))
        clips.append(first_half(random_clip(seed=seed), 0, rngs[-1])[0])
        assert clips[-1].is_contiguous()
    finished = first_half.second_half(torch.stack(clips), pickle.loads(pickle.dumps(rngs)))
    assert torch.equal(finished, torch.stack(expected)) and not torch.equal(finished, torch.stack(clips))


def test_the_memory_layout_of_the_input_does_not_matter():
    clip = random_clip()
    interleaved = clip.contiguous(memory_format=torch.channels_last)
    for seed in range(10):
        assert torch.equal(VIVIT(clip, 0, rng(seed))[0], VIVIT(interleaved, 0, rng(seed))[0])


# Steps


def test_a_flip_exchanges_the_labels_that_distinguish_left_from_right():
    clip = random_clip(height=32, width=32)
    transform = TrainTransform(crop=32, short_side=32, horizontal_flip=1.0, flip_labels={0: 1, 1: 0})
    for label, expected in ((0, 1), (1, 0), (7, 7)):
        out, new_label = transform(clip, label, rng())
        assert new_label == expected
        assert torch.equal(out, clip.flip(-1).transpose(0, 1))
    _, several = transform(clip, np.array([1.0, 0.0, 0.5]), rng())
    assert several.tolist() == [0.0, 1.0, 0.5]


def test_labels_change_only_in_flipped_clips():
    clip = random_clip(height=32, width=32)
    transform = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, flip_labels={0: 1, 1: 0})
    labels = []
    for seed in range(100):
        out, label = transform(clip, 0, rng(seed))
        assert torch.equal(out, (clip.flip(-1) if label else clip).transpose(0, 1))
        labels.append(label)
    assert 35 < sum(labels) < 65


def test_greyscale_equals_torchvisions():
    clip = random_clip(height=32, width=32)
    out, _ = TrainTransform(crop=32, short_side=32, grayscale=1.0)(clip, 0, rng())
    assert torch.equal(out, F.rgb_to_grayscale(clip, 3).transpose(0, 1))


def test_a_random_resized_crop_ignores_short_side_and_may_enlarge():
    """The box is drawn first, then the flip."""
    clip = random_clip(height=20, width=30)
    transform = TrainTransform(crop=32, short_side=8, random_resized_crop=(0.2, 0.8), horizontal_flip=1.0)
    expected = random_resized_crop(clip, 32, (0.2, 0.8), rng(3)).flip(-1).transpose(0, 1)
    assert torch.equal(transform(clip, 0, rng(3))[0], expected)


def test_erasing_comes_last_with_its_probability():
    clip = random_clip(height=32, width=32)
    plain = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, grayscale=0.5)
    erasing = TrainTransform(crop=32, short_side=32, horizontal_flip=0.5, grayscale=0.5, random_erasing=0.25)
    changed = [
        (erasing(clip, 0, rng(seed))[0] != plain(clip, 0, rng(seed))[0]).float().mean().item() for seed in range(200)
    ]
    assert max(changed) < 0.4, "the other draws stay the same"
    assert 0.15 < np.mean([fraction > 0 for fraction in changed]) < 0.35


# Impossible settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 224, "scale_jitter": (0.9, 1.33)}, "crop: found 224, .*201"),
        ({"rand_augment": (2, 20), "color_jitter": 0.8}, "rand_augment: .*color_jitter = 0.8"),
        ({"random_resized_crop": (0.08, 1), "scale_jitter": (0.9, 1.33)}, "scale_jitter: .*random_resized_crop"),
        ({"scale_jitter": (1.3, 0.9)}, r"scale_jitter: found \(1.3, 0.9\)"),
        ({"random_resized_crop": (0, 1)}, r"random_resized_crop: found \(0, 1\)"),
        ({"rand_augment_set": "audio"}, "rand_augment_set: found 'audio'"),
        ({"random_erasing_mode": "const"}, "random_erasing_mode: found 'const'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        TrainTransform(**{"crop": 224, "short_side": 256, **settings})
