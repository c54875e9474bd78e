"""Model names, and the class and arguments of each.

Names end in the compressed size, in the order of the paper: h x w for images, h x w x t for video. Everywhere else,
sizes are (t, h, w). The baselines are ViT and ViViT at the same sizes, TokenLearner (``_at6``: the first six blocks
process all tokens) and Perceiver. ``_recurrent`` models process a clip in two windows; their size is that of a window.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.perceiver import Perceiver
from lookupvivit.models.recurrent import RecurrentLookupViT
from lookupvivit.models.token_learner import TokenLearner
from lookupvivit.models.vit import ViT

# ViT's sizes (Dosovitskiy et al.; Steiner et al.), and pico, which trains in minutes on a CPU.
VARIANTS = {
    "pico": {"width": 128, "depth": 4, "num_heads": 4},
    "ti": {"width": 192, "depth": 12, "num_heads": 3},
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
}
VIDEO = {"input_size": (32, 224, 224), "tubelet": (2, 16, 16)}
PICO_VIDEO = {**VARIANTS["pico"], "input_size": (8, 64, 64), "tubelet": (2, 8, 8), "position_init": "sincos"}
PICO_PERCEIVER = {
    "input_size": (8, 64, 64),
    "tubelet": (2, 4, 4),
    "num_latents": 64,
    "width": 128,
    "depth": 2,
    "stages": 2,
    "num_heads": 4,
    "mlp_ratio": 4,
    "bands": 8,
}

# Argument names of earlier releases, which their configurations and model.json files contain -> current names
RENAMED_ARGUMENTS = {"heads": "classifiers", "head_bias": "classifier_bias"}


def _catalogue() -> dict[str, tuple[type[Model], dict[str, Any]]]:
    models: dict[str, tuple[type[Model], dict[str, Any]]] = {}
    for variant in ("ti", "s", "b", "l"):
        arguments = VARIANTS[variant]
        models[f"vit_{variant}16"] = ViT, arguments
        for learn_at in (arguments["depth"] // 2, arguments["depth"] * 3 // 4):  # TokenLearner 1/2 and 3/4
            models[f"tokenlearner_{variant}16_at{learn_at}"] = TokenLearner, {**arguments, "learn_at": learn_at}
        for k in (3, 5, 7, 10):  # Table 1
            models[f"lookupvit_{variant}16_{k}x{k}"] = LookupViT, {**arguments, "compressed_size": (1, k, k)}
    base_video = {**VARIANTS["b"], **VIDEO}
    models["vivit_b16x2"] = ViT, base_video
    for learn_at in (6, 9):
        models[f"tokenlearner_b16x2_at{learn_at}"] = TokenLearner, {**base_video, "learn_at": learn_at}
    for k, t in ((8, 16), *product((5, 7, 9), (4, 8, 16))):  # Table 4, and the ranges of Fig. 5a
        models[f"lookupvivit_b16x2_{k}x{k}x{t}"] = LookupViT, {**base_video, "compressed_size": (t, k, k)}
    models["lookupvivit_b16x2_9x9x4_recurrent"] = RecurrentLookupViT, {**base_video, "compressed_size": (4, 9, 9)}
    models["perceiver_224"] = Perceiver, {}
    models["vivit_pico8x2"] = ViT, PICO_VIDEO
    models["lookupvivit_pico8x2_4x4x4"] = LookupViT, {**PICO_VIDEO, "compressed_size": (4, 4, 4)}
    models["lookupvivit_pico8x2_4x4x2_recurrent"] = RecurrentLookupViT, {**PICO_VIDEO, "compressed_size": (2, 4, 4)}
    models["tokenlearner_pico8x2_at2"] = TokenLearner, {**PICO_VIDEO, "learn_at": 2}
    models["perceiver_pico8x2"] = Perceiver, PICO_PERCEIVER
    return models


CATALOGUE = _catalogue()


def list_models() -> list[str]:
    """Return all names that :func:`create_model` accepts."""
    return sorted(CATALOGUE)


def create_model(name: str, num_classes: int, **overrides: Any) -> Model:
    """Build a model by name, with random weights.

    Args:
        name: one of :func:`list_models`.
        num_classes: K.
        overrides: any argument of the model's class, such as ``depth=6`` or ``compressed_size=(1, 7, 7)``.

    Raises:
        ValueError: an unknown name or argument (the message suggests the closest known one), or an invalid value.
    """
    if name not in CATALOGUE:
        raise ValueError(f"name: found {name!r}{_suggest(name, CATALOGUE)}; lookupvivit.list_models() has all names")
    model, arguments = CATALOGUE[name]
    overrides = current_arguments(overrides)
    accepted = sorted(_arguments_of(model) - {"num_classes"})
    for key in overrides:
        if key not in accepted:
            raise ValueError(f"{name}: found {key!r}{_suggest(key, accepted)}; its arguments are {', '.join(accepted)}")
    created = model(num_classes, **{**arguments, **overrides})
    created.created_as = name, overrides
    return created


def current_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model under their current names, see `RENAMED_ARGUMENTS`.

    Raises:
        ValueError: an argument is given under both names.
    """
    for old, new in RENAMED_ARGUMENTS.items():
        if old in arguments and new in arguments:
            raise ValueError(f"{old}: found together with {new}, its current name; expected one of them")
    return {RENAMED_ARGUMENTS.get(key, key): value for key, value in arguments.items()}


def _arguments_of(model: type) -> set[str]:
    """The arguments of a class, including those of its parents that it passes on with ``**``."""
    names: set[str] = set()
    for parent in model.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _suggest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
