"""Run directories with small random models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import lookupvivit
from lookupvivit.weights.files import save_model

SMALL = {"width": 16, "depth": 1, "num_heads": 2}
VIDEO_PREPROCESSING = {"frames": 4, "stride": 1, "short_side": 64, "crop": 64, "range": [-1, 1]}
VIDEO_MODEL = "lookupvivit_pico8x2_4x4x4"


def save_random_model(
    folder: Path,
    name: str = VIDEO_MODEL,
    class_names: Sequence[str] = ("left", "à droite", "still"),
    preprocessing: dict[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Save a model whose classifiers are random instead of zero, so that it distinguishes inputs; returns ``folder``.

    Args:
        folder: written like a run directory.
        name: of the registry.
        class_names: K names.
        preprocessing: entry of model.json; default: clips of 4 frames of 64 x 64.
        seed: of the weights.
        options: of the model; by default it is small and takes the frames of ``preprocessing``.
    """
    preprocessing = preprocessing or VIDEO_PREPROCESSING
    side = preprocessing["crop"]
    overrides = {**SMALL, "input_size": [preprocessing["frames"], side, side], **options}
    torch.manual_seed(seed)
    model = lookupvivit.create_model(name, len(class_names), **overrides)
    for part, module in model.named_children():
        if part.endswith("head"):
            torch.nn.init.normal_(module.weight)
    description = {"name": name, "num_classes": len(class_names), "overrides": overrides}
    description |= {"preprocessing": preprocessing, "class_names": list(class_names)}
    save_model(folder, model.state_dict(), description)
    return folder
