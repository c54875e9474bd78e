"""Names of the models and what they stand for.

Image names end in the compressed size k x k, video names in h x w x t, as the paper writes them (sizes in code are
always (t, h, w)).
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import nn

from lookupvivit.models.lookupvit import LookupViT

# ViT's sizes (Dosovitskiy et al.; Steiner et al.); pico trains in minutes on a CPU.
WIDTHS = {
    "pico": {"width": 128, "depth": 4, "num_heads": 4},
    "ti": {"width": 192, "depth": 12, "num_heads": 3},
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
}


def _catalogue() -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for variant in ("ti", "s", "b", "l"):
        for k in (3, 5, 7, 10):  # Table 1
            models[f"lookupvit_{variant}16_{k}x{k}"] = {**WIDTHS[variant], "compressed_size": (1, k, k)}
    video = {"input_size": (32, 224, 224), "tubelet": (2, 16, 16)}
    for k, t in ((9, 8), (8, 16), (9, 16)):  # Table 4
        models[f"lookupvit_b16x2_{k}x{k}x{t}"] = {**WIDTHS["b"], **video, "compressed_size": (t, k, k)}
    models["lookupvit_pico8x2_4x4x4"] = {
        **WIDTHS["pico"],
        "input_size": (8, 64, 64),
        "tubelet": (2, 8, 8),
        "compressed_size": (4, 4, 4),
        "position_init": "sincos",
    }
    return models


CATALOGUE = _catalogue()


def list_models() -> list[str]:
    """Every name :func:`create_model` knows."""
    return sorted(CATALOGUE)


def model_arguments(name: str, num_classes: int, **overrides: Any) -> dict[str, Any]:
    """Constructor arguments of a named model, with ``overrides`` applied; ValueError names an unknown word."""
    if name not in CATALOGUE:
        raise ValueError(f"unknown model {name!r}{_closest(name, CATALOGUE)}; lookupvivit.list_models() lists all")
    known = set(inspect.signature(LookupViT).parameters) - {"num_classes"}
    for key in overrides:
        if key not in known:
            takes = ", ".join(sorted(known))
            raise ValueError(f"{name} has no argument {key!r}{_closest(key, known)}; it takes {takes}")
    return {"num_classes": num_classes, **CATALOGUE[name], **overrides}


def create_model(name: str, num_classes: int, **overrides: Any) -> nn.Module:
    """Build a model by name, freshly initialised.

    Args:
        name: one of :func:`list_models`.
        num_classes: classes to predict.
        overrides: any argument of the model's class, such as ``depth=6`` or ``compressed_size=(1, 7, 7)``.
    """
    return LookupViT(**model_arguments(name, num_classes, **overrides))


def _closest(word: str, known: Any) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
