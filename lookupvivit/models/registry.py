"""Names of the models and what they stand for.

LookupViT's image names end in the compressed size k x k, its video names in h x w x t, as the paper writes them (sizes
in code are always (t, h, w)). The baselines are ViT and ViViT at the same sizes, TokenLearner (``_at6``: the first six
blocks see all tokens) and Perceiver.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from itertools import product
from typing import Any

from torch import nn

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.perceiver import Perceiver
from lookupvivit.models.token_learner import TokenLearner
from lookupvivit.models.vit import ViT

# ViT's sizes (Dosovitskiy et al.; Steiner et al.); pico trains in minutes on a CPU.
WIDTHS = {
    "pico": {"width": 128, "depth": 4, "num_heads": 4},
    "ti": {"width": 192, "depth": 12, "num_heads": 3},
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
}
VIDEO = {"input_size": (32, 224, 224), "tubelet": (2, 16, 16)}
PICO_VIDEO = {**WIDTHS["pico"], "input_size": (8, 64, 64), "tubelet": (2, 8, 8), "position_init": "sincos"}

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


def _catalogue() -> dict[str, tuple[type[nn.Module], dict[str, Any]]]:
    models: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {}
    for variant in ("ti", "s", "b", "l"):
        models[f"vit_{variant}16"] = ViT, WIDTHS[variant]
        depth = WIDTHS[variant]["depth"]
        for at in (depth // 2, depth * 3 // 4):  # TokenLearner 1/2 and 3/4
            models[f"tokenlearner_{variant}16_at{at}"] = TokenLearner, {**WIDTHS[variant], "learn_at": at}
        for k in (3, 5, 7, 10):  # Table 1
            models[f"lookupvit_{variant}16_{k}x{k}"] = LookupViT, {**WIDTHS[variant], "compressed_size": (1, k, k)}
    models["vivit_b16x2"] = ViT, {**WIDTHS["b"], **VIDEO}
    for at in (6, 9):
        models[f"tokenlearner_b16x2_at{at}"] = TokenLearner, {**WIDTHS["b"], **VIDEO, "learn_at": at}
    for k, t in ((8, 16), *product((5, 7, 9), (4, 8, 16))):  # Table 4, and the ranges of Fig. 5a
        arguments = {**WIDTHS["b"], **VIDEO, "compressed_size": (t, k, k)}
        models[f"lookupvivit_b16x2_{k}x{k}x{t}"] = LookupViT, arguments
    models["perceiver_224"] = Perceiver, {}
    models["vivit_pico8x2"] = ViT, PICO_VIDEO
    models["lookupvivit_pico8x2_4x4x4"] = LookupViT, {**PICO_VIDEO, "compressed_size": (4, 4, 4)}
    models["tokenlearner_pico8x2_at2"] = TokenLearner, {**PICO_VIDEO, "learn_at": 2}
    models["perceiver_pico8x2"] = Perceiver, PICO_PERCEIVER
    return models


CATALOGUE = _catalogue()


def list_models() -> list[str]:
    """Every name :func:`create_model` knows."""
    return sorted(CATALOGUE)


def create_model(name: str, num_classes: int, **overrides: Any) -> nn.Module:
    """Build a model by name, freshly initialised.

    Args:
        name: one of :func:`list_models`.
        num_classes: classes to predict.
        overrides: any argument of the model's class, such as ``depth=6`` or ``compressed_size=(1, 7, 7)``.

    Raises:
        ValueError: an unknown name or argument (the message has the closest known one), or an impossible value.
    """
    if name not in CATALOGUE:
        raise ValueError(f"unknown model {name!r}{_closest(name, CATALOGUE)}; lookupvivit.list_models() lists all")
    model, arguments = CATALOGUE[name]
    known = sorted(_arguments(model) - {"num_classes"})
    for key in overrides:
        if key not in known:
            raise ValueError(f"{name} has no argument {key!r}{_closest(key, known)}; it takes {', '.join(known)}")
    return model(num_classes, **{**arguments, **overrides})


def _arguments(model: type) -> set[str]:
    """Arguments of a class, its parents' included where it hands on what it does not know."""
    names: set[str] = set()
    for parent in model.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _closest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
