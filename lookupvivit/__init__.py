"""LookupViT and LookupViViT: vision transformers that refine few compressed tokens and look up the rest.

    model = lookupvivit.load_model("runs/camera_motion")
    clip = lookupvivit.preprocess_of(model)("holiday.mp4")  # (3, T, H, W), the central clip
    logits = model(clip[None]).logits  # (1, K)
    lookupvivit.class_names_of(model)[logits.argmax()]

The functions are imported on first use: building a model needs only torch and einops, loading one also safetensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookupvivit.evaluation.stream import Stream
    from lookupvivit.features.extract import extract_features
    from lookupvivit.features.folders import load_features
    from lookupvivit.models.outputs import LogitsOnly
    from lookupvivit.models.registry import create_model, list_models
    from lookupvivit.profiling.budget import for_budget
    from lookupvivit.visualization.attention_maps import attention_maps
    from lookupvivit.weights.files import load_model
    from lookupvivit.weights.metadata import class_names_of, preprocess_of

__all__ = [
    "LogitsOnly",
    "Stream",
    "attention_maps",
    "class_names_of",
    "create_model",
    "extract_features",
    "for_budget",
    "list_models",
    "load_features",
    "load_model",
    "preprocess_of",
]
__version__ = "0.1.0"

_MODULES = {
    "LogitsOnly": "lookupvivit.models.outputs",
    "Stream": "lookupvivit.evaluation.stream",
    "attention_maps": "lookupvivit.visualization.attention_maps",
    "class_names_of": "lookupvivit.weights.metadata",
    "create_model": "lookupvivit.models.registry",
    "extract_features": "lookupvivit.features.extract",
    "for_budget": "lookupvivit.profiling.budget",
    "list_models": "lookupvivit.models.registry",
    "load_features": "lookupvivit.features.folders",
    "load_model": "lookupvivit.weights.files",
    "preprocess_of": "lookupvivit.weights.metadata",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lookupvivit' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
