"""The memory estimate beside what autograd saves."""

import pytest
import torch

from lookupvivit.layers.recompute import recompute_activations
from lookupvivit.models.catalogue import create_model
from lookupvivit.profiling.memory import trace


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"])
def test_what_autograd_saves(name, checkpointing, dtype):
    """The storages that autograd packs in a real pass, those of weights and video left out."""
    shape = (2, 3, 8, 64, 64)
    model = create_model(name, 10, depth=2).to(dtype).train()
    traced = trace(model, shape, dtype, checkpointing)
    recompute_activations(model, checkpointing)
    video = torch.randn(shape, dtype=dtype)
    own = {tensor.untyped_storage().data_ptr() for tensor in (video, *model.parameters())}
    kept, storages = [], {}

    def pack(tensor):
        kept.append(tensor)  # or its place could be another's
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(video)
    saved = sum(size for place, size in storages.items() if place not in own)
    assert saved <= traced.saved <= saved + 4096  # the trace holds logits and loss besides
    gradients = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
    assert traced.peak >= max(gradients, traced.saved) and output.logits.shape == (2, 10)
