"""Pixel values of the model input."""

import numpy as np
import torch

from data_pipelines.transforms.normalization import to_model_input


def test_bytes_are_mapped_to_minus_one_to_one():
    video = torch.arange(256, dtype=torch.uint8)
    values = to_model_input(video)
    assert values.dtype == torch.float32
    assert (values[0], values[51], values[255]) == (-1, torch.tensor(-0.6), 1)
    np.testing.assert_allclose(values.numpy(), np.linspace(-1, 1, 256), atol=1e-7)
    assert torch.equal(video, torch.arange(256, dtype=torch.uint8)), "the input is not changed"


def test_other_dtypes_are_rounded_once():
    video = torch.arange(256, dtype=torch.uint8)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(to_model_input(video, dtype=dtype), to_model_input(video).to(dtype))


def test_the_device_is_that_of_the_argument():
    assert to_model_input(torch.zeros(2, dtype=torch.uint8), device="meta").device.type == "meta"
