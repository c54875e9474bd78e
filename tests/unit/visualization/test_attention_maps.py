"""Attention maps against the attention matrices of the model, and their upsampling against SciPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

import lookupvivit
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.visualization.attention_maps import attention_maps, display_range, token_coverage, upsample_maps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LookupViT(10, (8, 64, 48), (2, 8, 8), (4, 3, 2), width=32, depth=3, num_heads=4, drop_path=0.5)
    for parameter in model.parameters():  # with its initial weights, a small model attends almost uniformly
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def video():
    return torch.rand(3, 8, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def attention(model, video):
    """The attention matrix of each block, (heads, tp, hp, wp, t, h, w)."""
    with torch.no_grad():
        output = model(video[None], return_intermediates=True)
    return [block["attention"][0].double().numpy() for block in output.intermediates]


def test_default_maps_are_means_over_heads_and_tokens(model, video, attention):
    maps = lookupvivit.attention_maps(model, video, blocks=[2, 0])
    assert maps.rows == ((2, None), (0, None)) and maps.compressed_size == (4, 3, 2)
    expected = np.stack([attention[block].reshape(4 * 24, 4, 8, 6).mean(axis=0) for block in (2, 0)])
    np.testing.assert_allclose(maps.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(maps.weights.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(maps.multiples.mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert maps.pixels().shape == (2, 8, 64, 48) and maps.cell(0) is None
    np.testing.assert_allclose(maps.pixels(80, 60).mean(), 1, atol=0.1)


def test_attention_within_a_part_is_its_mass_over_its_share_of_the_pixels(model, video, attention):
    mask = np.random.default_rng(0).random((8, 64, 48)) ** 4
    mass, total = 0.0, 0.0
    matrix = attention[1].reshape(4 * 24, 4, 8, 6)
    for frame, row, column in np.ndindex(mask.shape):  # every pixel has an equal part of the weight of its token
        weight = matrix[:, frame // 2, row // 8, column // 8].mean() / (2 * 8 * 8)
        mass, total = mass + weight * mask[frame, row, column], total + mask[frame, row, column]
    maps = attention_maps(model, video, blocks=[0, 1])
    within = maps.within(token_coverage(mask, (4, 8, 6)))
    assert within.shape == (2,)
    np.testing.assert_allclose(within[1], mass / (total / mask.size), rtol=1e-5)
    np.testing.assert_allclose(maps.within(np.ones((4, 8, 6))), 1, rtol=1e-5)
    one_token = np.zeros((4, 8, 6))
    one_token[3, 2, 5] = 0.25
    np.testing.assert_allclose(maps.within(one_token), maps.multiples[:, 3, 2, 5], rtol=1e-5)
    for coverage in (np.zeros((4, 8, 6)), np.ones((4, 8))):
        with pytest.raises(ValueError, match=r"^coverage: found .* expected \(4, 8, 6\) and a positive sum"):
            maps.within(coverage)


def test_maps_of_selected_tokens_and_heads_are_their_rows_of_the_attention_matrix(model, video, attention):
    maps = attention_maps(model, video, blocks=[1], heads=[0, 3], tokens=[(3, 2, 0), (0, 0, 1)])
    assert maps.rows == ((1, (3, 2, 0)), (1, (0, 0, 1))) and maps.heads == (0, 3) and maps.num_heads == 4
    for weights, token in zip(maps.weights, [(3, 2, 0), (0, 0, 1)], strict=True):
        np.testing.assert_allclose(weights, attention[1][([0, 3], *token)].mean(axis=0), rtol=1e-5)
    assert maps.cell(0) == (slice(6, 8), slice(42, 64), slice(0, 24))  # rounded outwards from 42 2/3
    assert maps.cell(1) == (slice(0, 2), slice(0, 22), slice(24, 48))


def test_frames_and_probabilities_are_those_of_the_model(model, video):
    maps = attention_maps(model, video)
    frames = ((video + 1) * 127.5).round().movedim(0, -1).numpy()
    assert maps.frames.dtype == np.uint8 and (maps.frames == frames).all()
    with torch.no_grad():
        probabilities = model(video[None]).logits.softmax(dim=-1)[0]
    np.testing.assert_allclose(maps.probabilities, probabilities, rtol=1e-5)


def test_maps_do_not_depend_on_the_models_mode_which_is_restored(model, video):
    before = attention_maps(model, video).weights
    try:
        np.testing.assert_array_equal(attention_maps(model.train(), video).weights, before)
        assert model.training
    finally:
        model.eval()


def test_an_image_at_another_compressed_size():
    model = LookupViT(3, (1, 32, 32), (1, 8, 8), (1, 2, 2), width=16, depth=2, num_heads=2)
    image = torch.rand(3, 32, 32) * 2 - 1
    maps = attention_maps(model, image, blocks=[1], tokens=[(0, 4, 4)], compressed_size=(1, 5, 5))
    assert maps.weights.shape == (1, 1, 4, 4) and maps.frames.shape == (1, 32, 32, 3)
    assert maps.compressed_size == (1, 5, 5) and maps.cell(0) == (slice(0, 1), slice(25, 32), slice(25, 32))


def test_upsampling_is_bicubic_without_overshoot_and_repeats_each_tubelet():
    maps = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    fine = upsample_maps(maps, 6, 48, 35)
    one = F.interpolate(maps[:, 1:2], size=(48, 35), mode="bicubic", align_corners=False)[:, 0]
    low, high = maps.amin((1, 2, 3))[:, None, None], maps.amax((1, 2, 3))[:, None, None]
    for frame in (2, 3):
        assert torch.equal(fine[:, frame], one.clamp(low, high))
    assert not torch.equal(one, one.clamp(low, high))
    # Another library's cubic spline of the same half-pixel grid comes close, away from the border.
    y, x = (np.arange(48) + 0.5) / 8 - 0.5, (np.arange(35) + 0.5) / 7 - 0.5
    spline = ndimage.map_coordinates(maps[0, 1].numpy(), np.meshgrid(y, x, indexing="ij"), mode="nearest")
    assert np.abs(fine[0, 2].numpy() - spline)[12:-12, 10:-10].max() < 0.15
    tubelets = torch.arange(3.0)[None, :, None, None].expand(1, 3, 2, 2)
    assert upsample_maps(tubelets, 6, 4, 4)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_one_outlier_does_not_determine_the_display_range():
    values = np.linspace(0, 1, 400)
    values[7] = 50.0
    assert display_range(values) == (0.0, pytest.approx(0.99, abs=0.01))
    assert display_range(np.full(8, 2.0)) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"blocks": [3]}, "blocks: found 3, .* 0 to 2"),
        ({"blocks": [-1]}, "blocks: found -1"),
        ({"blocks": []}, "blocks: found none"),
        ({"heads": [0, 4]}, "heads: found 4, .* 0 to 3"),
        ({"tokens": [(0, 0, 2)]}, "tokens: found 0,0,2, .*3,2,1.* 4x3x2"),
        ({"tokens": [(0, 0)]}, "tokens: found 0,0, .*t,h,w"),
        ({"compressed_size": (0, 1, 1)}, "three positive integers"),
    ],
)
def test_selections_that_do_not_exist_are_errors(model, video, selection, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(model, video, **selection)


@pytest.mark.parametrize("name", ["vivit_pico8x2", "perceiver_pico8x2", "tokenlearner_pico8x2_at2"])
def test_models_without_cross_attention(name):
    model = lookupvivit.create_model(name, 3)
    with pytest.raises(ValueError, match=f"model: found a {type(model).__name__}"):
        attention_maps(model, torch.zeros(3, 8, 64, 64))


def test_wrong_inputs_and_corrupt_weights_are_errors(model, video):
    for wrong in (video[None], video[:2], torch.zeros(3, 8, 64, 48, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"video: found .*\(3, T, H, W\)"):
            attention_maps(model, wrong)
    options = {"width": 16, "depth": 1, "num_heads": 2, "classifiers": "compressed", "exchange": "none"}
    ablation = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **options)
    with pytest.raises(ValueError, match=r"model: .*without exchange"):
        attention_maps(ablation, torch.zeros(3, 8, 64, 64))
    with pytest.raises(ValueError, match=r"attention: .*NaN"):
        attention_maps(model, video * float("nan"))
