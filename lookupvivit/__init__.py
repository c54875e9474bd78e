"""LookupViT and LookupViViT: vision transformers that refine few compressed tokens and look up the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lookupvivit.models.registry import create_model, list_models
    from lookupvivit.visualization.attention_maps import attention_maps

__all__ = ["attention_maps", "create_model", "list_models", "load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("create_model", "list_models"):  # only who builds a model waits for torch
        from lookupvivit.models import registry

        return getattr(registry, name)
    if name == "attention_maps":
        from lookupvivit.visualization.attention_maps import attention_maps

        return attention_maps
    raise AttributeError(f"module 'lookupvivit' has no attribute {name!r}")


def load_model(path: str | Path) -> nn.Module:
    """Rebuild a trained model, in eval mode on the CPU.

        model = lookupvivit.load_model("runs/camera_motion")
        logits = model(model.preprocess("clip.mp4")[None]).logits                # of the clip in the middle
        model.class_names[logits.argmax()]

    Args:
        path: a run directory, a checkpoint directory or its ``model.safetensors``, with ``model.json`` beside it.

    Raises:
        ValueError: none of these, or files that do not fit together.
    """
    from lookupvivit.weights.files import load_model as load  # only who loads needs safetensors

    return load(path)
