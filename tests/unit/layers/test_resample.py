"""T of Eq. 1 against PyTorch's interpolation and JAX's triangle kernel."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lookupvivit.layers.resample import resample, resampling_matrix

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 16), st.integers(1, 16))
IMAGE_SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def channels_first(grid):
    return grid.movedim(-1, 1)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES)
def test_without_antialiasing_it_equals_torchs_trilinear_interpolation(source, target):
    grid = torch.randn(2, *source, 3, dtype=torch.float64)
    expected = F.interpolate(channels_first(grid), size=target, mode="trilinear", align_corners=False)
    torch.testing.assert_close(channels_first(resample(grid, target, antialias=False)), expected, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(IMAGE_SIZES, IMAGE_SIZES)
def test_of_one_frame_it_equals_torchs_antialiased_bilinear_interpolation(source, target):
    grid = torch.randn(2, 1, *source, 3, dtype=torch.float64)
    expected = F.interpolate(channels_first(grid[:, 0]), size=target, mode="bilinear", antialias=True)
    torch.testing.assert_close(channels_first(resample(grid, (1, *target))[:, 0]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("antialias", [True, False])
def test_the_same_size_is_the_identity_and_upsampling_keeps_the_range(antialias):
    grid = torch.randn(1, 2, 14, 14, 4)
    assert resample(grid, (2, 14, 14), antialias) is grid
    assert torch.equal(resampling_matrix(14, 14, antialias), torch.eye(14))
    larger = resample(grid, (5, 30, 17), antialias)
    assert larger.shape == (1, 5, 30, 17, 4)
    assert larger.min() >= grid.min() - 1e-6 and larger.max() <= grid.max() + 1e-6


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_rows_are_weighted_means_and_symmetric(source, target, antialias):
    matrix = resampling_matrix(source, target, antialias, torch.float64)
    assert matrix.shape == (target, source)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(target, dtype=torch.float64))
    assert torch.equal(matrix, matrix.flip(0, 1))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_of_a_large_grid_are_accurate_in_every_dtype(dtype, antialias):
    exact = resampling_matrix(1000, 7, antialias, torch.float64)
    found = resampling_matrix(1000, 7, antialias, dtype)
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_antialiasing_widens_the_triangle_as_jax_does():
    # jax.image.resize from 4 to 2, "linear": weights 0.75, 0.75, 0.25 and 0 before normalisation
    torch.testing.assert_close(resampling_matrix(4, 2, True)[0], torch.tensor([0.75, 0.75, 0.25, 0.0]) / 1.75)


def test_resampling_is_linear():
    tokens, positions = torch.randn(2, 4, 14, 14, 8), torch.randn(1, 4, 14, 14, 8)
    size = (2, 5, 5)
    torch.testing.assert_close(resample(tokens + positions, size), resample(tokens, size) + resample(positions, size))
