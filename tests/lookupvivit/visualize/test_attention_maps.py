import numpy as np
import pytest
import torch

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.visualize.attention import mean_attention, normalize_maps, upsample_maps


def test_mean_attention_is_a_distribution_over_the_lookup_grid():
    attention = torch.rand(2, 3, 1, 2, 2, 4, 5, 6)
    attention /= attention.sum(dim=(-3, -2, -1), keepdim=True)
    maps = mean_attention(attention.half())
    by_hand = attention.half().numpy().astype(np.float64).reshape(2, 12, 4, 5, 6).mean(axis=1)
    np.testing.assert_allclose(maps.numpy(), by_hand, rtol=1e-5)
    np.testing.assert_allclose(mean_attention(attention).sum(dim=(1, 2, 3)), 1, rtol=1e-5)


def test_a_models_own_attention_becomes_maps_of_its_input():
    model = LookupViT(10, (8, 64, 64), (2, 8, 8), (4, 4, 4), width=32, depth=2, num_heads=2).eval()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 8, 64, 64) * 2 - 1, return_intermediates=True)
    maps = mean_attention(output.intermediates[0]["attention"])
    assert maps.shape == (1, 4, 8, 8) and maps.sum().item() == pytest.approx(1, abs=1e-4)
    assert upsample_maps(maps, 8, 64, 64).shape == (1, 8, 64, 64)


def test_each_frame_shows_its_own_tubelet():
    maps = torch.arange(3.0)[None, :, None, None].expand(1, 3, 2, 2)
    assert upsample_maps(maps, 6, 4, 4)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert upsample_maps(maps, 3, 4, 4)[0, :, 3, 3].tolist() == [0, 1, 2]


def test_space_is_bilinear_with_half_pixel_centres():
    row = upsample_maps(torch.tensor([[[[0.0, 1.0]]]]), 1, 1, 4)[0, 0, 0]
    assert row.tolist() == [0, 0.25, 0.75, 1]


def test_one_scale_per_clip_over_all_its_frames():
    maps = torch.tensor([[1.0, 3.0], [10.0, 10.0]]).reshape(2, 2, 1, 1).repeat(1, 1, 2, 2)
    maps[0, 0, 0, 0] = 2.0
    scaled, lo, hi = normalize_maps(maps)
    assert lo.tolist() == [1, 10] and hi.tolist() == [3, 10]
    assert scaled[0, :, 0, 0].tolist() == [0.5, 1] and scaled[0, 0, 1, 1] == 0
    assert scaled[1].eq(0).all()  # a constant map is not noise blown up


def test_one_outlier_does_not_darken_all_others():
    maps = torch.linspace(0, 1, 400).reshape(1, 1, 20, 20).clone()
    maps[0, 0, 19, 19] = 50.0
    scaled, _, hi = normalize_maps(maps)
    assert 0.98 < hi < 1 and scaled.max() == 1
    assert scaled[0, 0, 9, 19] > 0.49


def test_wrong_ranks_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        mean_attention(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"\(B, t, h, w\)"):
        upsample_maps(torch.zeros(2, 3, 4), 1, 1, 1)
