"""Weights for models with another image size, patch size or number of channels."""

from __future__ import annotations

from typing import Any

from timm.layers import resample_patch_embed
from torch import Tensor, nn

from lookupvivit.layers.resample import resample
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.sizes import Size, as_size


def resized_kernel(kernel: Tensor, tubelet: Size) -> Tensor:
    """(D, C, 1, h, w) -> (D, C, *tubelet), as FlexiViT does."""
    return resample_patch_embed(kernel.squeeze(2), list(tubelet[1:])).unsqueeze(2)


def fit_weights(state: dict[str, Tensor], model: LookupViT) -> dict[str, Tensor]:
    """Weights resampled to the model's ``img_size`` and ``patch_size``, with a 2-D kernel: timm adapts its channels."""
    state = dict(state)
    state["positions"] = resample(state["positions"], as_size(model.positions.shape[1:4]), model.antialias)
    kernel = "embedding.projection.weight"
    if state[kernel].shape[2:] != model.tubelet:
        state[kernel] = resized_kernel(state[kernel], model.tubelet)
    state[kernel] = state[kernel].squeeze(2)
    return state


def accept_image_kernel(projection: nn.Module, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
    """Make a 2-D kernel of `fit_weights` one of a single frame; called before weights are loaded."""
    kernel = state.get(f"{prefix}weight")
    if kernel is not None and kernel.dim() == 4:
        state[f"{prefix}weight"] = kernel.unsqueeze(2)
