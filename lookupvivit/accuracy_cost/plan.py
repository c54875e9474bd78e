"""Which (checkpoint, size) pairs are evaluated, what each costs, and what its accuracy depends on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.hashing import file_digest
from lookupvivit.accuracy_cost.record import Key, tokens_name
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.layers.compressed_init import require_size_within
from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.profiling.budget import default_sizes
from lookupvivit.profiling.flops import count_cost
from lookupvivit.sizes import Size, TokenSetting, as_keep
from lookupvivit.training.build import require_trained_as
from lookupvivit.weights.files import load_classifier, read_description, weights_file


@dataclass(frozen=True)
class Options:
    """What to evaluate.

    Attributes:
        run: the main checkpoint, whose curve is drawn: a run directory or its ``model.safetensors``.
        output: folder for the results.
        individuals: further checkpoints, evaluated at their own size.
        everywhere: evaluate ``individuals`` at all sizes (paper, Fig. 5b), as far as they support them.
        sizes: compressed sizes and shares of kept tokens; if empty, the compressed sizes of the run's multi-resolution
            training, otherwise `default_sizes`, each with the smallest, the middle and the largest share of its
            training.
        image_sizes: sides of the square input, pixels; if empty, the configuration's (several: paper, Fig. 1b).
        cascade: its two compressed sizes; None for the cheapest and the most expensive one.
        batch_size: views per call in the speed measurement; None for ``eval.batch_size``.
        rounds: of the speed measurement.
    """

    run: str
    output: Path
    individuals: tuple[str, ...] = ()
    everywhere: bool = False
    sizes: tuple[TokenSetting, ...] = ()
    image_sizes: tuple[int, ...] = ()
    cascade: tuple[TokenSetting, TokenSetting] | None = None
    batch_size: int | None = None
    rounds: int = 25


@dataclass(frozen=True)
class Checkpoint:
    """A model on the device.

    Attributes:
        path: where it was loaded from.
        name: of the model.
        model: with trained weights.
        digest: hash of the weights file.
        architecture: equal for checkpoints of equal speed.
    """

    path: str
    name: str
    model: nn.Module
    digest: str
    architecture: str

    @property
    def resizable(self) -> bool:
        """Whether a call may choose the compressed size."""
        return isinstance(self.model, LookupViT) and self.model.compress.any_size

    @property
    def own_size(self) -> Size | None:
        """The model's default compressed size; None for a model without compressed tokens."""
        return getattr(self.model, "compressed_size", None)

    @property
    def own_tokens(self) -> TokenSetting:
        """The model's default compressed size, and all lookup tokens."""
        return TokenSetting(self.own_size)

    def call_arguments(self, tokens: TokenSetting) -> dict[str, Any]:
        """Arguments of a call with these numbers of tokens."""
        return tokens.call if self.resizable else tokens._replace(compressed_size=None).call


@dataclass(frozen=True)
class PlannedPoint:
    """A (checkpoint, size) pair to evaluate.

    Attributes:
        checkpoint, tokens, image_size: as in `Point`.
        conditions: what else its accuracy depends on.
        gflops: multiply-adds per view, in G.
        parameters: number of parameters.
    """

    checkpoint: Checkpoint
    tokens: TokenSetting
    image_size: int
    conditions: dict[str, Any]
    gflops: float
    parameters: int

    @property
    def key(self) -> Key:
        """The key of the resulting `Point`."""
        return self.checkpoint.path, self.tokens, self.image_size

    @property
    def speed_key(self) -> Key:
        """Equal for points that take the same time."""
        return self.checkpoint.architecture, self.tokens, self.image_size

    def __str__(self) -> str:
        return _describe(self.checkpoint, self.tokens, self.image_size)

    def __call__(self, video: Tensor) -> Tensor:
        """Logits (B, K) of views (B, 3, T, H, W)."""
        return self.checkpoint.model(video, **self.checkpoint.call_arguments(self.tokens)).logits


def load_checkpoint(
    path: str, config: RunConfig, manifest: VideoManifest, device: torch.device, dtype: torch.dtype
) -> Checkpoint:
    """Load a checkpoint.

    Raises:
        ConfigError: it was trained on other classes or clips than the configuration's.
        WeightsError: it cannot be loaded.
    """
    preprocessing = config.data.preprocess().to_dict()
    require_trained_as(path, {"class_names": list(manifest.class_names), "preprocessing": preprocessing})
    description = read_description(path)
    return Checkpoint(
        path=path,
        name=description["name"],
        model=load_classifier(path).to(device, dtype),
        digest=file_digest(weights_file(path)),
        architecture=json.dumps([description["name"], description["overrides"]], sort_keys=True),
    )


def plan_points(
    config: RunConfig, options: Options, checkpoints: Sequence[Checkpoint], manifest: VideoManifest
) -> list[PlannedPoint]:
    """All points to evaluate, the main checkpoint's first.

    Args:
        config: of the main checkpoint's run.
        options: what to evaluate.
        checkpoints: the main one, then the individual ones.
        manifest: the validation videos.

    Raises:
        ConfigError: a model does not support a requested size.
    """
    main, *individuals = checkpoints
    sizes = _main_sizes(config, options, main)
    sizes_of = {main.path: sizes}
    for checkpoint in individuals:
        others = _supported(checkpoint, sizes) if options.everywhere else []
        sizes_of[checkpoint.path] = list(dict.fromkeys([*others, checkpoint.own_tokens]))
    videos = _videos_digest(manifest)
    points = []
    for checkpoint in checkpoints:
        sides = options.image_sizes or [config.data.crop]
        for image_size, tokens in itertools.product(sides, sizes_of[checkpoint.path]):
            gflops, parameters = _cost(checkpoint, tokens, (config.data.frames, image_size, image_size))
            conditions = _conditions(at_image_size(config, image_size), checkpoint, videos)
            points.append(PlannedPoint(checkpoint, tokens, image_size, conditions, gflops, parameters))
    return points


def at_image_size(config: RunConfig, side: int) -> RunConfig:
    """The configuration with crops of ``side`` pixels, cut from frames that are resized in proportion."""
    short_side = round(config.data.short_side * side / config.data.crop)
    return config.replace(data=config.data.replace(crop=side, short_side=short_side))


def _main_sizes(config: RunConfig, options: Options, main: Checkpoint) -> list[TokenSetting]:
    """The compressed sizes and shares of the main checkpoint, from few tokens to many."""
    requested = [*options.sizes, *(options.cascade or ())]
    if not main.resizable and any(tokens.compressed_size for tokens in requested):
        raise ConfigError(
            f"sizes: found {', '.join(map(str, requested))}, expected none: the compressed size of "
            f"{main.path}, {main.name}, is fixed or it has none"
        )
    multi_resolution = config.model.multi_resolution
    sizes: list[Size | None] = [main.own_size]
    if main.resizable:
        sizes = [*(multi_resolution.sizes if multi_resolution else default_sizes(cast(LookupViT, main.model)))]
    shares = config.model.keep_shares or [1.0]
    keeps = [as_keep(share) if share < 1 else None for share in (shares[0], shares[len(shares) // 2], shares[-1])]
    by_default = [TokenSetting(size, keep) for size in sizes for keep in keeps]
    chosen = [tokens._replace(compressed_size=tokens.compressed_size or main.own_size) for tokens in requested]
    return sorted({*(chosen if options.sizes else [*by_default, *chosen])}, key=_by_number)


def _by_number(tokens: TokenSetting) -> tuple[object, ...]:
    """Sort key: time, space, share of kept tokens, and what else distinguishes two settings."""
    t, h, w = tokens.compressed_size or (0, 0, 0)
    return t, h * w, tokens.keep.share if tokens.keep else 1, str(tokens)


def _supported(checkpoint: Checkpoint, sizes: Sequence[TokenSetting]) -> list[TokenSetting]:
    """The settings of the main checkpoint, as far as another one supports them."""
    supported = []
    for tokens in sizes:
        if tokens.keep:
            try:
                check_keep(checkpoint.model, tokens.keep)
            except ValueError:
                continue
        size = tokens.compressed_size if checkpoint.resizable else checkpoint.own_size
        supported.append(TokenSetting(size, tokens.keep))
    return supported


def _conditions(config: RunConfig, checkpoint: Checkpoint, videos: str) -> dict[str, Any]:
    conditions = {
        "weights": checkpoint.digest,
        "precision": config.runtime.precision,
        "videos": videos,
        "views": [config.eval.clips, config.eval.crops],
        "backend": config.data.backend,
        "preprocessing": config.data.preprocess().to_dict(),
    }
    return json.loads(json.dumps(conditions))  # tuples become lists, as in the file


def _videos_digest(manifest: VideoManifest) -> str:
    """A hash of all paths and labels."""
    lines = "".join(f"{path}\t{label}\n" for path, label in zip(manifest.paths, manifest.labels.tolist(), strict=True))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()[:16]


def _cost(checkpoint: Checkpoint, tokens: TokenSetting, input_size: Size) -> tuple[float, int]:
    """GFLOPs (multiply-adds) of a view, and number of parameters."""
    model: Any = checkpoint.model
    try:
        if hasattr(model, "embedding"):
            grid = model.embedding.grid(input_size)  # checked here, because errors within a trace are unreadable
            if tokens.compressed_size and tokens.compressed_size != checkpoint.own_size:
                require_size_within(tokens.compressed_size, grid)
        check_keep(model, tokens.keep)
        cost = count_cost(model, (1, 3, *input_size), **checkpoint.call_arguments(tokens))
    except ValueError as error:
        raise ConfigError(f"{_describe(checkpoint, tokens, input_size[1])}: {error}") from None
    return cost.macs / 1e9, cost.parameters


def _describe(checkpoint: Checkpoint, tokens: TokenSetting, image_size: int) -> str:
    return f"{checkpoint.path} at {tokens_name(tokens)}, {image_size} pixels"
