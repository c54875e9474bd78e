"""Import of other models' weights: the same network exactly, or a LookupViT upcycled from a ViT.

Nothing is guessed silently. Every tensor of the model is reported as loaded, resized, upcycled or initialised. Every
unused tensor of the source is reported as ignored, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.shapes_only import shapes_only
from lookupvivit.models.token_learner import TokenLearner
from lookupvivit.models.vit import ViT
from lookupvivit.sizes import Size
from lookupvivit.weights.files import (
    DESCRIPTION,
    WEIGHTS,
    MissingTensorsError,
    WeightsError,
    described_model,
    is_named,
    load_weights,
    read_description,
    read_tensors,
    weights_file,
)
from lookupvivit.weights.resizing import (
    fold_imagenet_normalization,
    inflate,
    resize_positions,
    sincos_of_index,
    spread_kernel,
    unflatten_positions,
)
from lookupvivit.weights.shipped import shipped_or
from lookupvivit.weights.source_formats import Source, read_source
from lookupvivit.weights.upcycling import upcycle

PIXELS = ("symmetric", "imagenet")


@dataclass
class ImportReport:
    """What was done with every tensor.

    Attributes:
        kind: what the source was recognised as.
        loaded: tensors copied unchanged.
        resized, upcycled: tensor name -> how, from where.
        initialised: tensors that keep their random weights.
        ignored: tensor of the source -> reason.
        differences: conventions in which the model differs from the source, with advice.
        notes: anything else that the user should know.
    """

    kind: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    upcycled: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.kind}: {len(self.loaded)} tensors loaded"]
        parts += [f"resized {name} ({how})" for name, how in self.resized.items()]
        if self.upcycled:
            origins = sorted(set(self.upcycled.values()))
            parts.append(f"{len(self.upcycled)} upcycled ({', '.join(origins)})")
        if self.initialised:
            parts.append(f"randomly initialised {', '.join(_by_block(self.initialised))}")
        parts += [f"ignored {name} ({reason})" for name, reason in self.ignored.items()]
        parts += [f"NOTE the source has {difference}" for difference in self.differences]
        parts += [f"NOTE {note}" for note in self.notes]
        return "; ".join(parts)


def import_weights(
    model: Model,
    path: str | Path,
    inflation: str = "central",
    pixels: str | None = None,
    new: Sequence[str] = (),
) -> ImportReport:
    """Load the weights of any known checkpoint into ``model``.

    Args:
        model: a ViT or ViViT of the source's width and depth; or a LookupViT, which is upcycled from one (see
            :func:`lookupvivit.weights.upcycling.upcycle`); or any model, from a run of the same model.
        path: a run directory, this library's ``model.safetensors``, the name of a shipped model, or a file that
            `lookupvivit.weights.source_formats` reads.
        inflation: how an image model's patch kernel fills a tubelet: "central" frame (ViViT's choice) or "average".
        pixels: the source's pixel values: "symmetric" ([-1, 1], as here) or "imagenet" (normalised by ImageNet's mean
            and standard deviation: DeiT, MAE, ...), which is folded into the patch kernel; by default what its format
            implies.
        new: parts of the names of parameters that the source lacks, such as "infuse.gate"; they stay random.

    Raises:
        WeightsError: a file that cannot be read, other sizes, tensors that nothing explains, or an entry of ``new``
            that names no parameter that the source lacks.
    """
    path = shipped_or(path)
    report = _import_weights(model, path, inflation, pixels, new)
    for part in new:
        if not any(is_named(name, [part]) for name in report.initialised):
            raise WeightsError(f"{path}: found a tensor for every parameter named {part!r}, expected a new parameter")
    return report


def _import_weights(
    model: Model, path: str | Path, inflation: str, pixels: str | None, new: Sequence[str]
) -> ImportReport:
    if pixels not in (None, *PIXELS):
        raise WeightsError(f"pixels: found {pixels!r}, expected one of {', '.join(PIXELS)}")
    own_model = _own_model(path)
    if own_model is not None and not _converts(own_model, model):
        return _load_own(model, own_model, path, inflation, new)
    if not isinstance(model, ViT | LookupViT) or isinstance(model, TokenLearner):
        raise WeightsError(
            f"{path}: another model's weights cannot initialise a {type(model).__name__}, only ViT, ViViT and LookupViT"
        )
    source = read_source(path) if own_model is None else _as_source(cast(ViT, own_model), path)
    report = ImportReport(source.kind, ignored=dict(source.ignored))
    _require_same_sizes(model, source, path)
    if source.conventions.get("num_heads") is None:
        num_heads = _conventions(model)["num_heads"]
        report.notes.append(f"the file does not record the number of attention heads; this model has {num_heads}")
    state = _fit(model, source, inflation, source.pixels if pixels is None else pixels, report, path)
    if isinstance(model, LookupViT):
        state, report.upcycled = upcycle(model, state)
    _drop_class_token(model, state, report)
    _copy(model, state, report, path, new)
    _compare_conventions(model, source.conventions, report)
    return report


# ----------------------------------------------------------------------------------------------------------------------
# Sources of this library


def _own_model(path: str | Path) -> Model | None:
    """The model of this library's own weights, on the meta device; None for other files."""
    path = Path(path)
    if not path.is_dir() and not (path.name == WEIGHTS and path.with_name(DESCRIPTION).is_file()):
        return None
    with shapes_only():
        return described_model(read_description(path))


def _converts(source: Model, model: Model) -> bool:
    """Whether weights of this library are converted: a ViT's into a LookupViT, or an image ViT's into a ViViT."""
    if type(source) is not ViT:
        return False
    is_image_to_video = isinstance(model, ViT) and source.tubelet[0] == 1 < model.tubelet[0]
    return isinstance(model, LookupViT) or is_image_to_video


def _load_own(model: Model, source: Model, path: str | Path, inflation: str, new: Sequence[str]) -> ImportReport:
    """Load a run of the same model, whose classes and input size may differ."""
    imported = ImportReport(f"{type(source).__name__}, trained here")
    if isinstance(model, ViT | LookupViT) and isinstance(source, ViT | LookupViT):
        conventions = _conventions(source)
        _require_same_sizes(model, Source(imported.kind, {}, conventions), path)
        _compare_conventions(model, conventions, imported)
    fitted: dict[str, Callable[[Tensor, Size], Tensor]] = {
        "positions": resize_positions,
        "embedding.projection.weight": partial(spread_kernel, inflation=inflation),
    }
    report = load_weights(model, path, fit=fitted, new=new)
    imported.loaded, imported.resized = report.loaded, report.resized
    imported.initialised = report.initialised + report.missing
    for classifier in sorted({name.rpartition(".")[0] for name in report.initialised}):
        imported.ignored[classifier] = f"{source.num_classes} classes, the model has {model.num_classes}"
    return imported


def _as_source(source: ViT, path: str | Path) -> Source:
    state = read_tensors(weights_file(path))
    kernel = state["embedding.projection.weight"]
    if kernel.dim() == 5 and kernel.shape[2] == 1:  # an image model's, which other libraries store in 2-D
        state["embedding.projection.weight"] = kernel[:, :, 0]
    return Source(f"{type(source).__name__}, trained here", state, _conventions(source))


# ----------------------------------------------------------------------------------------------------------------------
# Shapes and conventions


def _conventions(model: ViT | LookupViT) -> dict[str, Any]:
    """The arguments in which a source is compared with the model."""
    block: Any = model.blocks[0]
    if isinstance(model, LookupViT):
        block = block.refine
    return {
        "width": model.width,
        "depth": len(model.blocks),
        "num_heads": block.attention.num_heads,
        "gelu": block.mlp[1].approximate,
        "eps": block.mlp_norm.eps,
        "pooling": getattr(model, "pooling", "gap"),
    }


def _require_same_sizes(model: ViT | LookupViT, source: Source, path: str | Path) -> None:
    ours = _conventions(model)
    for key in ("width", "depth", "num_heads"):
        theirs = source.conventions.get(key)
        if theirs is not None and theirs != ours[key]:
            raise WeightsError(f"{path}: found a {source.kind} with {key} {theirs}, but the model has {ours[key]}")


def _compare_conventions(model: ViT | LookupViT, conventions: dict[str, Any], report: ImportReport) -> None:
    """Report in what the model computes something else than the source did."""
    ours = _conventions(model)
    for key in ("gelu", "eps", "pooling"):
        theirs = conventions.get(key)
        if theirs is None or theirs == ours[key]:
            continue
        advice = f"set model.overrides.{key} to be exact"
        if key == "pooling" and isinstance(model, LookupViT):
            if theirs == "token":  # reported as an ignored class token
                continue
            advice = "LookupViT normalises tokens before it averages them, so its initial logits differ"
        report.differences.append(f"{key}={theirs!r}, but this model {ours[key]!r}: {advice}")


def _fit(
    model: ViT | LookupViT, source: Source, inflation: str, pixels: str, report: ImportReport, path: str | Path
) -> dict[str, Tensor]:
    """The source's state with patch kernel, positions and classifier in the model's shapes."""
    state = dict(source.state)
    is_image = _fit_patch_kernel(model, state, inflation, pixels, report)
    if source.conventions.get("fixed_positions") and "positions" not in state:
        state["positions"] = sincos_of_index(model.positions.shape[1:4].numel(), model.width)
    if "positions" in state:
        _fit_positions(model, state, is_image, report, path)
    head = state.get("head.weight")
    if head is not None and head.shape[0] != model.num_classes:
        report.ignored["head"] = f"{head.shape[0]} classes, the model has {model.num_classes}"
        del state["head.weight"]
        state.pop("head.bias", None)
    return state


def _fit_patch_kernel(
    model: ViT | LookupViT, state: dict[str, Tensor], inflation: str, pixels: str, report: ImportReport
) -> bool:
    """Inflate a 2-D kernel and fold in the pixel normalisation. Returns whether the source is an image model."""
    kernel, frames = state["embedding.projection.weight"], model.embedding.tubelet[0]
    is_image = kernel.dim() == 4
    if is_image:
        kernel = inflate(kernel, frames, inflation)
        if frames > 1:
            report.resized["embedding.projection.weight"] = f"2-D kernel to {frames} frames, {inflation}"
    state["embedding.projection.weight"] = kernel
    if pixels == "imagenet":
        folded = fold_imagenet_normalization(kernel, state["embedding.projection.bias"])
        state["embedding.projection.weight"], state["embedding.projection.bias"] = folded
        report.resized["embedding.projection"] = "ImageNet's pixel normalisation folded in"
    return is_image


def _fit_positions(
    model: ViT | LookupViT, state: dict[str, Tensor], is_image: bool, report: ImportReport, path: str | Path
) -> None:
    t, h, w = model.positions.shape[1:4]
    try:
        table = unflatten_positions(state["positions"], (t, h, w), is_image)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    state["positions"] = resize_positions(table, (t, h, w))
    if table.shape != state["positions"].shape:
        report.resized["positions"] = f"{tuple(table.shape[1:-1])} to {(t, h, w)}"


def _drop_class_token(model: ViT | LookupViT, state: dict[str, Tensor], report: ImportReport) -> None:
    has_class_token = isinstance(model, ViT) and model.class_token is not None
    if not has_class_token and state.pop("class_token", None) is not None:
        report.ignored["class_token"] = "the model averages its tokens"


def _copy(model: Model, state: dict[str, Tensor], report: ImportReport, path: str | Path, new: Sequence[str]) -> None:
    """Copy the state into the model; every tensor must have its place, and every place its tensor."""
    own = model.state_dict()
    unexpected = state.keys() - own.keys()
    if unexpected:
        raise WeightsError(f"{path}: unexpected tensor {min(unexpected)} ({len(unexpected)} in all)")
    for name, tensor in own.items():
        if name not in state:
            if not _may_stay_random(model, name) and not is_named(name, new):
                raise MissingTensorsError(f"{path}: has no tensor for {name}")
            report.initialised.append(name)
        elif state[name].shape != tensor.shape:
            raise WeightsError(
                f"{path}: tensor {name}: found shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )
        else:
            tensor.copy_(state[name])
            if name not in report.upcycled:
                report.loaded.append(name)


def _may_stay_random(model: Model, name: str) -> bool:
    """A classifier for other classes, and those parts of LookupViT that a ViT does not have."""
    if name.rpartition(".")[0].endswith("head"):
        return True
    new = ("q_norm.", "k_norm.", "v_norm.", "lookup_mlp.0.", "lookup_mlp_norm.")
    return isinstance(model, LookupViT) and (name.startswith("compress.") or any(part in name for part in new))


def _by_block(names: list[str]) -> list[str]:
    """Each name once, with * for the number of its block."""
    unnumbered = set()
    for name in names:
        first, *rest = name.split(".")
        if rest and rest[0].isdigit():
            rest[0] = "*"
        unnumbered.add(".".join([first, *rest]))
    return sorted(unnumbered)
