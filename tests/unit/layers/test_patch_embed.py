"""The linear map of every tubelet against PyTorch's convolution with the same weights."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lookupvivit.layers.patch_embed import TubeletEmbedding

SIZES = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 9))
def test_equals_a_convolution_whose_stride_is_its_kernel(tubelet, grid, batch, width):
    torch.manual_seed(0)
    embedding = TubeletEmbedding(tubelet, width).double()
    torch.nn.init.normal_(embedding.projection.bias)
    video_size = [count * step for count, step in zip(grid, tubelet, strict=True)]
    video = torch.randn(batch, 3, *video_size, dtype=torch.float64)
    leaves = [video.requires_grad_(), *embedding.parameters()]
    tokens = embedding(video)
    expected = F.conv3d(*leaves, stride=tubelet).movedim(1, -1)
    assert tokens.shape == (batch, *grid, width) and tokens.is_contiguous()
    torch.testing.assert_close(tokens, expected)
    incoming = torch.randn_like(expected)
    gradients, expected_gradients = (torch.autograd.grad(x, leaves, incoming) for x in (tokens, expected))
    torch.testing.assert_close(gradients, expected_gradients)
