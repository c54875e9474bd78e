"""LookupViT's image models under timm's names and interface; ``import lookupvivit.timm`` registers them.

    timm.create_model("lookupvit_b16_5x5", num_classes=10, img_size=384, drop_path_rate=0.1)

timm models have one token sequence, which may start with prefix tokens that have no position in the image. Here, the
compressed tokens are the prefix, and the lookup tokens, as maps (B, D, h, w), are the features. Parameter names are the
same as in `lookupvivit.models.lookupvit`: both libraries load each other's weights.

Shape legend: `lookupvivit.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg

from lookupvivit.models.base import Model
from lookupvivit.models.registry import CATALOGUE
from lookupvivit.timm.model import TimmLookupViT
from lookupvivit.timm.weights import fit_weights


def _entry_point(name: str, arguments: dict[str, Any]) -> Callable[..., Model]:
    """The function that timm calls to build a model; timm registers it under its ``__name__``."""

    def build(pretrained: bool = False, **kwargs: Any) -> Model:
        sources = {key: kwargs.get(key) for key in ("pretrained_cfg", "pretrained_cfg_overlay")}
        resolved = resolve_pretrained_cfg(name, **sources)
        if pretrained and not (resolved.has_weights or resolved.state_dict):
            raise ValueError(
                f"pretrained: found True for {name}, for which no weights have been published; load your own with "
                "checkpoint_path=..., or start from a ViT with lookupvivit.weights.importing.import_weights"
            )
        return build_model_with_cfg(
            TimmLookupViT,
            name,
            pretrained,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            pretrained_filter_fn=fit_weights,
            **{**arguments, **kwargs},
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name} of `lookupvivit.list_models()`."
    return build


_IMAGE_MODELS = {name: arguments for name, (_, arguments) in CATALOGUE.items() if name.startswith("lookupvit_")}

# Pixels in [-1, 1], and big_vision's test crop: 224 of 256 pixels.
default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": None,
            "crop_pct": 224 / 256,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "embedding.projection",
            "classifier": ("compressed_head", "lookup_head"),
            "license": "apache-2.0",
        }
        for name in _IMAGE_MODELS
    }
)
__all__ = ["TimmLookupViT", *(register_model(_entry_point(*entry)).__name__ for entry in _IMAGE_MODELS.items())]
