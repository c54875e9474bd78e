"""The linear map of every tubelet against PyTorch's convolution with the same weights."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lookupvivit.layers.patch_embed import TubeletEmbedding

sizes = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(1, 3), st.integers(1, 9))
def test_equals_a_convolution_whose_stride_is_its_kernel(tubelet, grid, batch, width):
    torch.manual_seed(0)
    embedding = TubeletEmbedding(tubelet, width).double()
    torch.nn.init.normal_(embedding.projection.bias)
    video = torch.randn(batch, 3, *(a * b for a, b in zip(tubelet, grid, strict=True)), dtype=torch.float64)
    leaves = [video.requires_grad_(), *embedding.parameters()]
    tokens = embedding(video)
    exact = F.conv3d(*leaves, stride=tubelet).movedim(1, -1)
    assert tokens.shape == (batch, *grid, width) and tokens.is_contiguous()
    torch.testing.assert_close(tokens, exact)
    towards = torch.randn_like(exact)
    for found, right in zip(*(torch.autograd.grad(x, leaves, towards) for x in (tokens, exact)), strict=True):
        torch.testing.assert_close(found, right)
