"""Traced activation memory against the tensors that autograd saves in a real pass."""

import pytest
import torch

from lookupvivit import kernels
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.activation_trace import trace_activations
from lookupvivit.profiling.memory_measurement import saved_bytes

SHAPE = (2, 3, 8, 64, 64)
LOSS_BYTES = 4096  # the trace includes logits and loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"])
def test_traced_activations_are_those_that_autograd_saves(name, checkpointing, dtype):
    model = create_model(name, 10, depth=2).to(dtype).train()
    traced = trace_activations(model, SHAPE, dtype, checkpointing=checkpointing)
    set_activation_checkpointing(model, checkpointing)
    video = torch.randn(SHAPE, dtype=dtype)
    saved = saved_bytes(lambda: model(video), (video, *model.parameters()))
    assert saved <= traced.saved <= saved + LOSS_BYTES
    gradients = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
    assert traced.peak >= max(gradients, traced.saved)


@pytest.mark.parametrize(("device", "kernel_name"), [("cpu", "auto"), ("cuda", "reference")])
def test_the_trace_saves_what_the_kernels_of_the_device_save(device, kernel_name):
    """With 2x2x2 compressed and 4x8x8 lookup tokens, a CPU folds projections and saves other tensors than a GPU."""
    size = (2, 2, 2)
    model = create_model("lookupvivit_pico8x2_4x4x4", 10, depth=2).train()
    traced = trace_activations(model, SHAPE, torch.float32, device=device, compressed_size=size)
    video = torch.randn(SHAPE)
    with kernels.use(kernel_name):
        saved = saved_bytes(lambda: model(video, size), (video, *model.parameters()))
    assert saved <= traced.saved <= saved + LOSS_BYTES
