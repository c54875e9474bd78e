"""Small caption decoders for tests."""

import torch
from torch import nn

from lookupvivit.captioning.decoder import CaptionDecoder

MEMORY_WIDTH = 16
SMALL_DECODER = {"width": 24, "depth": 2, "num_heads": 3, "length": 7}


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Add noise to all parameters, so that no layer stays at zero; returns the model in eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def small_decoder(vocabulary: int = 9, seed: int = 0, **arguments) -> CaptionDecoder:
    return perturb(CaptionDecoder(vocabulary, MEMORY_WIDTH, **{**SMALL_DECODER, **arguments}), seed)
