"""Weights of other models into this library's: the same network exactly, or a LookupViT upcycled from a ViT.

Nothing is guessed silently: every tensor of the model is told as loaded, resized, upcycled or initialised, and every
tensor of the source that found no place as ignored, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.transforms.normalization import IMAGENET_MEAN, IMAGENET_STD
from lookupvivit.layers.resample import resample
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.token_learner import TokenLearner
from lookupvivit.models.vit import ViT
from lookupvivit.weights.files import (
    DESCRIPTION,
    WEIGHTS,
    WeightsError,
    described_model,
    load_weights,
    read_description,
    read_tensors,
    weights_file,
)
from lookupvivit.weights.source_formats import Source, read_source


@dataclass
class ImportReport:
    """What became of every tensor."""

    kind: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    upcycled: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.kind}: {len(self.loaded)} tensors loaded"]
        parts += [f"resized {name} ({how})" for name, how in self.resized.items()]
        if self.upcycled:
            origins = sorted(set(self.upcycled.values()))
            parts.append(f"{len(self.upcycled)} upcycled ({', '.join(origins)})")
        if self.initialised:
            parts.append(f"initialised afresh {', '.join(_summary(self.initialised))}")
        parts += [f"ignored {name} ({why})" for name, why in self.ignored.items()]
        parts += [f"NOTE the source has {difference}" for difference in self.differs]
        parts += [f"NOTE {note}" for note in self.notes]
        return "; ".join(parts)


PIXELS = ("symmetric", "imagenet")
INFLATIONS = ("central", "average")


def import_weights(
    model: nn.Module, path: str | Path, inflation: str = "central", pixels: str | None = None
) -> ImportReport:
    """Start ``model`` from any checkpoint known here.

    Args:
        model: a ViT or ViViT of the source's width and depth; or a LookupViT, which is upcycled from one (see
            :func:`upcycle`); or any model, from a run of the same model.
        path: a run directory, this library's ``model.safetensors``, or a file of `weights.sources`.
        inflation: how a patch kernel of an image model fills a tubelet: "central" frame, zeros elsewhere (ViViT's
            choice), or "average" over the frames.
        pixels: what the source was trained on, "symmetric" ([-1, 1], as here) or "imagenet" (normalised by its mean
            and deviation: DeiT, MAE, ...), which is folded into the patch kernel; by default what its format tells.

    Raises:
        WeightsError: unreadable, of other sizes, or with tensors that nothing explains.
    """
    if pixels not in (None, *PIXELS):
        raise WeightsError(f"pixels must be one of {PIXELS}, found {pixels!r}")
    own = _own_model(path)
    if own is not None and not (type(own) is ViT and (isinstance(model, LookupViT) or _is_still(own, model))):
        return _from_own_run(model, own, path)
    if not isinstance(model, ViT | LookupViT) or isinstance(model, TokenLearner):
        raise WeightsError(
            f"{path}: a {type(model).__name__} cannot start from another model's weights; ViT, ViViT and LookupViT can"
        )
    source = _own_source(own, path) if own is not None else read_source(path)
    report = ImportReport(source.kind, ignored=dict(source.ignored))
    _check_sizes(model, source, path)
    if source.conventions.get("num_heads") is None:
        heads = _conventions(model)["num_heads"]
        report.notes.append(f"the file does not tell the number of heads; this model has {heads}")
    pixels = source.pixels if pixels is None else pixels
    state = _fit(model, source, inflation, report, path)
    if pixels == "imagenet":
        fold_imagenet_pixels(state, report)
    if isinstance(model, LookupViT):
        state = upcycle(model, state, report)
    _copy(model, state, report, path)
    _compare(model, source.conventions, report)
    return report


def _from_own_run(model: nn.Module, own: nn.Module, path: str | Path) -> ImportReport:
    """The same model, perhaps of other classes or pictures of another size, name by name."""
    imported = ImportReport(f"{type(own).__name__}, trained here")
    if isinstance(model, ViT | LookupViT) and isinstance(own, ViT | LookupViT):
        source = Source(imported.kind, {}, _conventions(own))
        _check_sizes(model, source, path)
        _compare(model, source.conventions, imported)
    report = load_weights(model, path, fit_positions=fit_positions)
    imported.loaded, imported.initialised, imported.resized = report.loaded, report.initialised, report.resized
    for head in sorted({name.rpartition(".")[0] for name in report.initialised}):
        imported.ignored[head] = f"{own.num_classes} classes, the model has {model.num_classes}"
    return imported


def _compare(model: nn.Module, conventions: dict[str, Any], report: ImportReport) -> None:
    """Tell in what the model does not compute what the source did."""
    ours = _conventions(model)
    for key in ("gelu", "eps", "pooling"):
        theirs = conventions.get(key)
        if theirs is None or theirs == ours[key]:
            continue
        advice = f"set model.overrides.{key} to be exact"
        if key == "pooling" and isinstance(model, LookupViT):
            if theirs == "token":  # told as an ignored class token
                continue
            advice = "a LookupViT norms tokens before it averages them, so its first logits are others"
        report.differs.append(f"{key}={theirs!r} and this model {ours[key]!r}: {advice}")


def upcycle(model: LookupViT, state: dict[str, Tensor], report: ImportReport) -> dict[str, Tensor]:
    """A ViT's state under LookupViT's names, such that at step 0 it is that ViT on the compressed tokens.

    The compressed stream takes each ViT block as it is. The exchange takes the block's own attention projections; both
    its output projections and that of the lookup MLP start at zero, so that it opens while it learns: full-strength
    messages between streams that never met would only be noise to the trained blocks. The lookup head starts at zero.
    """
    ours: dict[str, Tensor] = {}
    for name in ("embedding.projection.weight", "embedding.projection.bias", "positions"):
        if name in state:
            ours[name] = state.pop(name)
    for i, block in enumerate(model.blocks):
        old, new = f"blocks.{i}.", f"blocks.{i}."
        theirs = {name.removeprefix(old): state.pop(name) for name in list(state) if name.startswith(old)}
        ours |= {f"{new}refine.{name}": tensor for name, tensor in theirs.items()}
        if block.exchange == "none":
            continue
        for kind in ("weight", "bias"):
            q, k, v = theirs[f"attention.qkv.{kind}"].chunk(3)
            known = set(ours)
            ours |= {f"{new}gather.{part}.{kind}": value for part, value in zip("qkv", (q, k, v), strict=True)}
            ours |= {
                f"{new}gather_norm_{stream}.{kind}": theirs[f"attention_norm.{kind}"]
                for stream in ("compressed", "lookup")
            }
            ours[f"{new}gather.out.{kind}"] = torch.zeros_like(theirs[f"attention.out.{kind}"])
            if block.exchange == "both":
                ours[f"{new}infuse.v.{kind}"] = v
                ours[f"{new}infuse_norm.{kind}"] = theirs[f"attention_norm.{kind}"]
                ours[f"{new}infuse.out.{kind}"] = torch.zeros_like(theirs[f"attention.out.{kind}"])
                last = getattr(block.lookup_mlp[2], kind)
                ours[f"{new}lookup_mlp.2.{kind}"] = torch.zeros_like(last)
            for name in ours.keys() - known:
                closed = name.split(".", 2)[2].startswith(("gather.out", "infuse.out", "lookup_mlp.2"))
                report.upcycled[name] = "zeros that open while it learns" if closed else "the block's own attention"
    for kind in ("weight", "bias"):
        norm, head = state.pop(f"norm.{kind}"), state.pop(f"head.{kind}", None)
        for stream in ("compressed", "lookup"):
            if hasattr(model, f"{stream}_norm"):
                ours[f"{stream}_norm.{kind}"] = norm
        stream = "compressed" if hasattr(model, "compressed_head") else "lookup"
        if head is not None:
            ours[f"{stream}_head.{kind}"] = head
    if state.pop("class_token", None) is not None:
        report.ignored["class_token"] = "LookupViT averages its tokens"
    return ours | state


def _own_model(path: str | Path) -> nn.Module | None:
    """The model that this library's own weights belong to, without its weights; None of another's file."""
    path = Path(path)
    if not path.is_dir() and not (path.name == WEIGHTS and path.with_name(DESCRIPTION).is_file()):
        return None
    with torch.device("meta"):
        return described_model(read_description(path))


def _is_still(own: ViT, model: nn.Module) -> bool:
    """Whether a ViT of images shall start a model of video."""
    return isinstance(model, ViT) and own.embedding.tubelet[0] == 1 < model.embedding.tubelet[0]


def _own_source(own: ViT, path: str | Path) -> Source:
    state = read_tensors(weights_file(path))
    kernel = state["embedding.projection.weight"]
    if kernel.dim() == 5 and kernel.shape[2] == 1:  # of pictures, as other libraries keep it
        state["embedding.projection.weight"] = kernel[:, :, 0]
    return Source(f"{type(own).__name__}, trained here", state, _conventions(own))


def _check_sizes(model: ViT | LookupViT, source: Source, path: str | Path) -> None:
    found = _conventions(model)
    for key in ("width", "depth", "num_heads"):
        ours, theirs = found[key], source.conventions.get(key)
        if theirs is not None and theirs != ours:
            raise WeightsError(f"{path}: a {source.kind} of {key} {theirs}, the model has {ours}; use its size")


def _fit(
    model: ViT | LookupViT, source: Source, inflation: str, report: ImportReport, path: str | Path
) -> dict[str, Tensor]:
    """Patch kernel, positions and classifier in the model's shapes."""
    state, conventions = dict(source.state), source.conventions
    tubelet = model.embedding.tubelet
    kernel = state["embedding.projection.weight"]
    of_pictures = kernel.dim() == 4
    if of_pictures:
        state["embedding.projection.weight"] = inflate(kernel, tubelet[0], inflation)
        if tubelet[0] > 1:
            report.resized["embedding.projection.weight"] = f"2-D kernel to {tubelet[0]} frames, {inflation}"
    grid = tuple(model.positions.shape[1:4])
    if conventions.get("fixed_positions") and "positions" not in state:
        state["positions"] = numbered_sines(grid[0] * grid[1] * grid[2], model.width)
    if "positions" in state:
        table = state["positions"]
        table = place_positions(table, grid, of_pictures, path)
        fitted = fit_positions(table, grid)
        if table.shape != fitted.shape:
            report.resized["positions"] = f"{tuple(table.shape[1:-1])} to {grid}"
        state["positions"] = fitted
    head = state.get("head.weight")
    if head is not None and head.shape[0] != model.num_classes:
        report.ignored["head"] = f"{head.shape[0]} classes, the model has {model.num_classes}"
        state.pop("head.weight"), state.pop("head.bias", None)
    if isinstance(model, ViT) and model.class_token is None and state.pop("class_token", None) is not None:
        report.ignored["class_token"] = "this model averages its tokens"
    return state


def inflate(kernel: Tensor, frames: int, how: str) -> Tensor:
    """Patch kernel (D, 3, h, w) to a tubelet's (D, 3, frames, h, w); Arnab et al., section 3.4."""
    if how == "average":
        return kernel[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    if how != "central":
        raise WeightsError(f"inflation must be one of {INFLATIONS}, found {how!r}")
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def fold_imagenet_pixels(state: dict[str, Tensor], report: ImportReport) -> None:
    """Let a patch embedding made for (x01 - mean) / deviation read x = 2 x01 - 1; exact, as there is no padding."""
    kernel, bias = (state[f"embedding.projection.{kind}"] for kind in ("weight", "bias"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    state["embedding.projection.weight"] = kernel / (2 * std)
    state["embedding.projection.bias"] = bias + (kernel * (0.5 - mean) / std).sum((1, 2, 3, 4))
    report.resized["embedding.projection"] = "ImageNet's normalisation of pixels folded in"


def place_positions(table: Tensor, grid: tuple[int, int, int], of_pictures: bool, path: str | Path) -> Tensor:
    """A table (1, N, D) on the grid it was made for, (1, t, h, w, D), which the file does not tell.

    Of pictures, it is the model's own height and width or a square; of video, the model's own height and width at any
    length, or square frames of the model's length.
    """
    if table.dim() == 5:
        return table
    tokens, (t, h, w) = table.shape[1], grid
    side = math.isqrt(tokens if of_pictures else tokens // t)
    if of_pictures and tokens == h * w:
        return table.unflatten(1, (1, h, w))
    if of_pictures and side * side == tokens:
        return table.unflatten(1, (1, side, side))
    if not of_pictures and tokens % (h * w) == 0:
        return table.unflatten(1, (-1, h, w))
    if not of_pictures and t * side * side == tokens:
        return table.unflatten(1, (t, side, side))
    kind = "pictures" if of_pictures else "video"
    raise WeightsError(
        f"{path}: {tokens} positions of {kind} fit neither the model's grid {grid} nor squares; build "
        "the model at the source's size"
    )


def fit_positions(table: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """A table (1, t, h, w, D) as (1, *grid, D): resized in space, repeated or resized over time."""
    if table.shape[1] == 1:
        return resample(table, (1, *grid[1:])).repeat(1, grid[0], 1, 1, 1)
    return resample(table, grid)


def numbered_sines(count: int, width: int) -> Tensor:
    """VideoMAE's fixed positions, (1, count, width): the token's number n as sin and cos of n / 10000^(2i / width)."""
    angles = np.arange(count)[:, None] / 10000.0 ** (2 * (np.arange(width) // 2) / width)
    table = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.from_numpy(table).float()[None]


def _copy(model: nn.Module, state: dict[str, Tensor], report: ImportReport, path: str | Path) -> None:
    own = model.state_dict()
    strangers = state.keys() - own.keys()
    if strangers:
        raise WeightsError(f"{path}: no place for tensor {min(strangers)} ({len(strangers)} such)")
    for name, tensor in own.items():
        if name not in state:
            if not _may_be_fresh(model, name):
                raise WeightsError(f"{path}: has no tensor for {name}")
            report.initialised.append(name)
        elif state[name].shape != tensor.shape:
            raise WeightsError(f"{path}: {name} is {tuple(state[name].shape)}, the model wants {tuple(tensor.shape)}")
        else:
            tensor.copy_(state[name])
            if name not in report.upcycled:
                report.loaded.append(name)


def _may_be_fresh(model: nn.Module, name: str) -> bool:
    """A classifier of other classes; of LookupViT, what a ViT does not have."""
    if name.rpartition(".")[0].endswith("head"):
        return True
    new = ("q_norm.", "k_norm.", "v_norm.", "lookup_mlp.0.", "lookup_mlp_norm.")
    return isinstance(model, LookupViT) and (name.startswith("compress.") or any(part in name for part in new))


def _conventions(model: ViT | LookupViT) -> dict[str, Any]:
    """What a source is compared in."""
    block = model.blocks[0].refine if isinstance(model, LookupViT) else model.blocks[0]
    return {
        "width": model.width,
        "depth": len(model.blocks),
        "num_heads": block.attention.heads,
        "gelu": block.mlp[1].approximate,
        "eps": block.mlp_norm.eps,
        "pooling": getattr(model, "pooling", "gap"),
    }


def _summary(names: list[str]) -> list[str]:
    """Names with the block's number left out, each once."""
    return sorted(
        {
            ".".join("*" if part.isdigit() and i == 1 else part for i, part in enumerate(name.split(".")))
            for name in names
        }
    )
