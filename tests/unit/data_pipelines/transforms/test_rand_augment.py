"""RandAugment, against Pillow and torchvision with given parameters."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from support.clips import random_clip, rng
from torchvision.transforms.v2 import functional as F

from data_pipelines.io.errors import DataError
from data_pipelines.transforms import rand_augment as ra

GREY = (128, 128, 128)


def with_pillow(clip, function):
    """Apply a function of a PIL image to every frame."""
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in clip]
    return torch.stack([torch.from_numpy(np.array(function(image))).permute(2, 0, 1) for image in images])


# Drawing operations


@pytest.mark.parametrize(("name", "size"), [("video", 12), ("image", 16)])
def test_operations_are_drawn_uniformly_and_applied_in_sequence(monkeypatch, name, size):
    assert len(set(ra.operation_set(name))) == size
    applied = []

    def recorder(index):
        def operation(clip, strength, generator):
            applied.append((index, strength))
            return clip + 1

        return operation

    monkeypatch.setitem(ra.OPERATION_SETS, name, tuple(recorder(index) for index in range(size)))
    clip, generator = torch.zeros(1, 3, 2, 2, dtype=torch.int64), rng()
    out = ra.rand_augment(clip, layers=200 * size, magnitude=15, rng=generator, operations=name)
    assert (out == 200 * size).all()
    assert {strength for _, strength in applied} == {1.5}
    counts = np.bincount([index for index, _ in applied], minlength=size)
    assert (abs(counts - 200) < 60).all()  # within 4.5 standard deviations


def test_the_image_set_adds_geometry_and_has_no_identity():
    video, image = set(ra.operation_set("video")), set(ra.operation_set("image"))
    assert len(image - video) == 6 and len(video - image) == 2
    assert ra._identity in video - image


def test_an_unknown_set_is_refused():
    with pytest.raises(DataError, match="rand_augment_set: found 'all'"):
        ra.rand_augment(random_clip(), 1, 9, rng(), "all")


# Colour: strengths are TensorFlow's level_to_arg at magnitudes 10 and 5


@pytest.mark.parametrize(("strength", "bits", "threshold", "shift"), [(1.0, 4, 256, 110), (0.5, 2, 128, 55)])
def test_posterize_solarize_and_invert_against_pillow(strength, bits, threshold, shift):
    clip = random_clip(frames=2)
    posterized = with_pillow(clip, lambda image: ImageOps.posterize(image, bits))
    assert torch.equal(ra._posterize(clip, strength, rng()), posterized)
    solarized = with_pillow(clip, lambda image: ImageOps.solarize(image, threshold))
    assert torch.equal(ra._solarize(clip, strength, rng()), solarized)
    assert torch.equal(ra._invert(clip, strength, rng()), with_pillow(clip, ImageOps.invert))
    lifted = with_pillow(clip, lambda image: image.point(lambda p: min(255, p + shift) if p < 128 else p))
    assert torch.equal(ra._solarize_add(clip, strength, rng()), lifted)


@pytest.mark.parametrize(("strength", "factor"), [(1.0, 1.9), (0.5, 1.0), (0.2, 0.46)])
@pytest.mark.parametrize(
    ("operation", "enhancement"),
    [
        (ra._brightness, ImageEnhance.Brightness),
        (ra._contrast, ImageEnhance.Contrast),
        (ra._color, ImageEnhance.Color),
        (ra._sharpness, ImageEnhance.Sharpness),
    ],
)
def test_blends_against_pillow(operation, enhancement, strength, factor):
    """On one frame; Pillow rounds the degenerate image before blending, torchvision does not."""
    clip = random_clip(frames=1)
    expected = with_pillow(clip, lambda image: enhancement(image).enhance(factor))
    difference = operation(clip, strength, rng()).int() - expected.int()
    assert difference.abs().max() <= 2


def test_equalize_against_pillow():
    clip = random_clip(frames=1) // 3
    assert torch.equal(ra._equalize(clip, 1.0, rng()), with_pillow(clip, ImageOps.equalize))


def test_magnitudes_beyond_the_nominal_range_have_no_effect_on_posterize_and_solarize():
    clip = random_clip()
    assert torch.equal(ra._posterize(clip, 2.0, rng()), clip)
    assert torch.equal(ra._solarize(clip, 2.0, rng()), clip)


@pytest.mark.parametrize("operation", [ra._auto_contrast, ra._equalize, ra._contrast])
def test_statistics_are_those_of_the_whole_clip(operation):
    """A dark and a bright frame stay dark and bright; per frame they would become equal, and the video flicker."""
    clip = torch.stack([torch.full((3, 8, 8), 50), torch.full((3, 8, 8), 150)]).byte()
    dark, bright = operation(clip, 1.0, rng())
    assert dark.max() < bright.min()


def test_auto_contrast_stretches_a_clip_to_the_full_range():
    clip = torch.stack([torch.full((3, 8, 8), 50), torch.full((3, 8, 8), 150)]).byte()
    dark, bright = ra._auto_contrast(clip, 1.0, rng())
    assert (dark == 0).all() and (bright >= 254).all()  # torchvision truncates


# Geometry


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("operation", "coefficients"),
    [
        (ra._shear_x, lambda sign: (1, 0.3 * sign, 0, 0, 1, 0)),
        (ra._shear_y, lambda sign: (1, 0, 0, 0.3 * sign, 1, 0)),
        (ra._translate_x, lambda sign: (1, 0, 100 * sign, 0, 1, 0)),
        (ra._translate_y, lambda sign: (1, 0, 0, 0, 1, 100 * sign)),
    ],
)
def test_affine_operations_at_magnitude_10_against_pillow(operation, coefficients, seed):
    """Coefficients map a place in the result to one in the frame. The sign is random."""
    clip = random_clip(frames=2, height=120, width=160)
    out = operation(clip, 1.0, rng(seed))
    matches = []
    for sign in (-1, 1):
        matrix = coefficients(sign)
        expected = with_pillow(
            clip, lambda image, m=matrix: image.transform(image.size, Image.Transform.AFFINE, m, fillcolor=GREY)
        )
        matches.append((out == expected).float().mean())
    assert max(matches) > 0.99  # places on the edges of pixels are rounded differently


@pytest.mark.parametrize("seed", range(4))
def test_rotation_at_magnitude_10_against_pillow(seed):
    clip = random_clip(frames=2, height=120, width=160)
    out = ra._rotate(clip, 1.0, rng(seed))
    rotated = [with_pillow(clip, lambda image, a=angle: image.rotate(a, fillcolor=GREY)) for angle in (-30, 30)]
    assert max((out == expected).float().mean() for expected in rotated) > 0.99


@pytest.mark.parametrize(("strength", "pixels"), [(0.05, 5), (0.2, 20)])
def test_translations_go_both_ways_and_grow_with_the_magnitude(strength, pixels):
    clip = torch.zeros(1, 3, 50, 50, dtype=torch.uint8)
    clip[..., 25, 25] = 255
    columns = {ra._translate_x(clip, strength, rng(seed))[0, 0, 25].argmax().item() for seed in range(20)}
    rows = {ra._translate_y(clip, strength, rng(seed))[0, 0, :, 25].argmax().item() for seed in range(20)}
    assert columns == rows == {25 - pixels, 25 + pixels}


def test_strength_zero_does_not_move_pixels():
    clip = random_clip()
    for operation in (ra._rotate, ra._shear_x, ra._shear_y, ra._translate_x, ra._translate_y):
        assert torch.equal(operation(clip, 0.0, rng()), clip)


@pytest.mark.parametrize(("operation", "fill"), [(ra._cutout, 0), (ra._cutout_grey, 128)])
def test_cutout_fills_a_square_that_the_border_may_cut(operation, fill):
    clip = torch.full((2, 3, 100, 100), 9, dtype=torch.uint8)
    shapes = set()
    for seed in range(100):
        out = operation(clip, 0.5, rng(seed))  # 40 pixels wide
        filled = out == fill
        assert (filled | (out == 9)).all() and (filled == filled[0, 0]).all()
        shapes.add((int(filled[0, 0].any(1).sum()), int(filled[0, 0].any(0).sum())))
    assert (40, 40) in shapes
    assert min(min(shape) for shape in shapes) < 30 and max(max(shape) for shape in shapes) == 40
    assert (clip == 9).all(), "the input is not changed"


def test_greyscale_weights_of_color_are_torchvisions():
    clip = random_clip(frames=1)
    assert torch.equal(ra._color(clip, 0.5, rng()), clip), "factor 1 is the clip itself"
    assert torch.equal(ra._color(clip, -1 / 18, rng()), F.rgb_to_grayscale(clip, 3)), "factor 0 is grey"
